"""Bounds of traffic reach the repository that a command opens, whichever command it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from longshore import datapath
from longshore.cli.main import main
from longshore.errors import NoSpaceError

COMMANDS = {
    "backup": (["volume", "backup", "."], True),
    "restore": (["volume", "restore", "latest", "target"], False),
    "verify": (["volume", "verify", "latest"], False),
    "check": (["repo", "check"], False),
    "repair": (["repo", "repair"], True),
    "prune": (["repo", "prune"], True),
}


class Opened:
    """Notes the bounds, then ends the command."""

    def __init__(self) -> None:
        self.bounds: tuple[int | None, int | None] | None = None

    def limit_traffic(self, *, upload_bytes_per_second: int | None, download_bytes_per_second: int | None) -> None:
        self.bounds = upload_bytes_per_second, download_bytes_per_second
        raise NoSpaceError("that is enough")


@pytest.mark.parametrize("name", COMMANDS)
def test_bounds_reach_the_repository(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("longshore-key-1:" + "0" * 64 + "\n")
    monkeypatch.chdir(tmp_path)
    opened = Opened()
    monkeypatch.setattr(datapath, "open", lambda *_args, **_options: opened)
    words, writes = COMMANDS[name]
    common = ["--repository", str(tmp_path / "repository"), "--key-file", str(tmp_path / "key")]

    def run(*limits: str) -> tuple[int | None, int | None] | None:
        opened.bounds = None
        assert main([*words, *common, *limits]) == NoSpaceError.exit_code, capsys.readouterr().err
        return opened.bounds

    assert run() == (None, None)
    assert run("--limit-download", "20MiB") == (None, 20 << 20)
    if writes:
        assert run("--limit-upload", "5KB", "--limit-download", "1") == (5000, 1)
    else:
        assert main([*words, *common, "--limit-upload", "5KB"]) == 2
    assert main([*words, *common, "--limit-download", "fast"]) == 2
