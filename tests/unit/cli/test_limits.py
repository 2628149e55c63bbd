"""Limits reach the repository that a command opens, whichever command it is."""

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


class Noted:
    """Takes the place of `datapath.Limits`, and notes what it is told."""

    def __init__(self, *, nice: int | None, ionice: str) -> None:
        self.said: tuple[object, ...] = (nice, ionice)

    def set(
        self, *, upload_bytes_per_second: int | None, download_bytes_per_second: int | None, requests: int | None
    ) -> None:
        self.said = (upload_bytes_per_second, download_bytes_per_second, requests, *self.said)


@pytest.mark.parametrize("name", COMMANDS)
def test_bounds_reach_the_repository(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("longshore-key-1:" + "0" * 64 + "\n")
    monkeypatch.chdir(tmp_path)
    given: list[Noted] = []

    def opened(*_args: object, limits: Noted, **_options: object) -> None:
        given.append(limits)
        raise NoSpaceError("that is enough")

    monkeypatch.setattr(datapath, "open", opened)
    monkeypatch.setattr(datapath, "Limits", Noted)
    words, writes = COMMANDS[name]
    common = ["--repository", str(tmp_path / "repository"), "--key-file", str(tmp_path / "key")]

    def run(*limits: str) -> tuple[object, ...]:
        given.clear()
        assert main([*words, *common, *limits]) == NoSpaceError.exit_code, capsys.readouterr().err
        (limit,) = given
        return limit.said

    assert run() == (None, None, None, None, "none")
    assert run("--limit-download", "20MiB") == (None, 20 << 20, None, None, "none")
    assert run("--limit-requests", "3", "--nice", "7", "--ionice", "idle") == (None, None, 3, 7, "idle")
    if writes:
        assert run("--limit-upload", "5KB", "--limit-download", "1") == (5000, 1, None, None, "none")
    else:
        assert main([*words, *common, "--limit-upload", "5KB"]) == 2
    for wrong in (
        ["--limit-download", "fast"],
        ["--limit-requests", "0"],
        ["--nice", "20"],
        ["--nice", "-1"],
        ["--ionice", "realtime"],
    ):
        assert main([*words, *common, *wrong]) == 2
