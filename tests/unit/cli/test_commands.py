"""The tree of commands: quick to show, true to its own tables, and told whole in docs/reference/cli.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from longshore.cli import main as entry
from longshore.cli.lazy import LazyGroup
from longshore.cli.options import LEVELS
from longshore.cli.reference import commands, page
from longshore.logs import LEVELS as KNOWN_LEVELS

ROOT = Path(__file__).parents[3]
TREE = dict(commands(entry.root, ("longshore",)))


def _is_group(command: click.Command) -> bool:
    return isinstance(command, LazyGroup)


@pytest.mark.parametrize("path", [path for path, command in TREE.items() if not _is_group(command)], ids=" ".join)
def test_every_command_has_help_that_its_group_repeats(path: tuple[str, ...]) -> None:
    command, group = TREE[path], TREE[path[:-1]]
    assert isinstance(group, LazyGroup)
    first = (command.help or "").split(". ")[0].strip().splitlines()[0].rstrip(".")
    assert group.lazy[path[-1]][1].rstrip(".") == first
    assert command.name == path[-1]


@pytest.mark.parametrize(
    "path", [path for path, command in TREE.items() if _is_group(command) and len(path) > 1], ids=" ".join
)
def test_every_group_has_help_that_its_group_repeats(path: tuple[str, ...]) -> None:
    group = TREE[path[:-1]]
    assert isinstance(group, LazyGroup)
    assert (TREE[path].help or "").split(".")[0] == group.lazy[path[-1]][1].rstrip(".")


def test_every_option_has_help() -> None:
    for path, command in TREE.items():
        for option in command.params:
            assert not isinstance(option, click.Option) or option.hidden or option.help, (path, option.name)


def test_no_option_takes_a_secret() -> None:
    """Arguments can be read by everyone on a machine."""
    names = {name for command in TREE.values() for option in command.params for name in option.opts}
    assert {"--key-file", "--passphrase-file"} <= names
    assert not {name for name in names if name.strip("-") in {"key", "passphrase", "password", "secret"}}


@pytest.mark.parametrize("words", [["--help"], ["volume", "--help"], ["volume", "nonsense"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys, json\nfrom longshore.cli.main import main\nmain(sys.argv[1:])\n"
        "print('MODULES', json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT / "python", capture_output=True, text=True, check=True
    )
    loaded = json.loads(answer.stdout.rpartition("MODULES")[2])
    heavy = {
        "kubernetes",
        "boto3",
        "rich",
        "pydantic",
        "structlog",
        "yaml",
        "asyncio",
        "importlib.metadata",
        "longshore._native",
    }
    assert not heavy & set(loaded)
    # A command's own file is loaded when it is called.
    assert not [name for name in loaded if name.startswith("longshore.cli.volume.")]


def test_levels_are_those_of_the_logs() -> None:
    assert set(LEVELS) == set(KNOWN_LEVELS)


@pytest.mark.parametrize("words", [["--version"], ["--version", "repo"]])
def test_versions_are_shown_by_the_option_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["version"]) == 0
    shown = capsys.readouterr()
    assert "longshore" in shown.out + shown.err
    assert entry.main(words) == 0
    assert capsys.readouterr() == shown


def test_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == page(), (
        "run: python -m longshore.cli.reference > docs/reference/cli.md"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_asks_this_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_LONGSHORE_COMPLETE" in script
    assert "longshore" in script


def test_completion_completes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_LONGSHORE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "longshore volume ba")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        entry.main([])
    assert "backup" in capsys.readouterr().out
