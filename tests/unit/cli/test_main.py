"""Every failure becomes a message, a next step and an exit code of the table; nothing shows a traceback unasked."""

from __future__ import annotations

import errno
import json

import click
import pytest

from longshore import errors
from longshore.cli import main as entry
from longshore.cli.main import main

CODES = {0, 1, 2, 3, 4, 10, 12, 13, 14, 15, 16, 130}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Let `longshore version` fail as it is told."""

    def fail_with(error: BaseException) -> None:
        @click.command("version")
        @click.option("--json", is_flag=True)
        @click.option("--log-level")
        def command(**_options: object) -> None:
            raise error

        monkeypatch.setattr(type(entry.root), "get_command", lambda self, ctx, name: command)

    return fail_with


ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LongshoreError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_has_a_code_of_the_table(kind, failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(kind("it went wrong: what=this", "mend it"))
    assert main(["version"]) == kind.exit_code
    assert kind.exit_code in CODES - {0}
    captured = capsys.readouterr()
    assert captured.err == "error: it went wrong: what=this\nnext: mend it\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 16, "no space is left"),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), 1, "Permission denied, file=/etc/x"),
        (MemoryError(), 1, "memory"),
        (ZeroDivisionError("division by zero"), 1, "a fault of longshore itself: ZeroDivisionError"),
        (click.UsageError("No such thing."), 2, "error: no such thing\n"),
        (click.Abort(), 130, "interrupted"),
    ],
)
def test_other_failures(
    error: BaseException, code: int, text: str, failing, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert main(["version", "--json"]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["type"] for line in lines] == ["error", "summary"]
    assert lines[1]["exit_code"] == code
    assert lines[0]["message"] in captured.err


def test_trace_is_shown_to_who_asks_and_holds_no_secret(failing, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "longshore-key-1:" + "ab" * 32
    failing(ZeroDivisionError(f"while reading {secret}"))
    for words in (["version", "--log-level", "debug"], ["version", "--log-level=debug"]):
        assert main(words) == 1
        shown = capsys.readouterr().err
        assert "Traceback" in shown
        assert "ab" * 32 not in shown.partition("error: ")[0]
    assert main(["version", "--log-level", "info"]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["volume"], ["repo", "key"]])
def test_a_group_alone_shows_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "Commands:" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nonsense"], "nonsense"),
        (["volume", "backup"], "PATH"),
        (["volume", "backup", "/", "--memory-limit", "much"], "much"),
        (["volume", "list", "--nonsense"], "--nonsense"),
        (["volume", "list"], "no repository is named"),
        (["volume", "list", "-r", "ftp://x"], "ftp"),
        (["volume", "list", "-r", "/nowhere"], "neither a key file nor a passphrase"),
        (["volume", "list", "-r", "/nowhere", "--key-file", "/nowhere/key"], "there is no such key file"),
        (["volume", "show", "latest:a", "-r", "/nowhere"], "shown as a whole"),
        (["repo", "init", "-r", "/nowhere/deeper"], "neither a key file nor a passphrase"),
        (["repo", "key", "add", "-r", "/nowhere"], "not clear"),
        (["volume", "list", "--json", "-o", "yaml", "-r", "/nowhere"], "both given"),
    ],
)
def test_wrong_words_exit_with_two_and_a_next_step(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("REPOSITORY", "KEY_FILE", "PASSPHRASE", "CACHE_DIR"):
        monkeypatch.delenv(f"LONGSHORE_{name}", raising=False)
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert text in shown
    assert "next: " in shown


def test_a_reader_that_leaves_is_no_traceback(tmp_path) -> None:
    import subprocess
    import sys
    from pathlib import Path

    program = "import sys; from longshore.cli.main import main; sys.exit(main(['--help']))"
    answer = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "{program}" | true'],
        cwd=Path(__file__).parents[3] / "python",
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stderr == ""
    assert answer.returncode in {0, 1}
