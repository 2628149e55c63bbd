"""A backup and a restore that are killed by SIGKILL and run again, as a user would: by the command line.

Where in the run the kill falls is left to chance but for its being late enough that something was stored; what must hold holds anywhere.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import assert_same
from tests.engine.test_cli import MIB, PATIENCE_SECONDS, PROGRAM, Commands

SIZE_BYTES = 192 * MIB


@pytest.fixture
def made(tmp_path: Path) -> Commands:
    commands = Commands(tmp_path)
    commands.run("repo", "init")
    return commands


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "small").mkdir(parents=True)
    for number in range(64):
        (folder / "small" / f"f{number:02}").write_bytes(os.urandom(MIB))
    (folder / "zlarge").write_bytes(os.urandom(SIZE_BYTES - 64 * MIB))
    # Times within a clock tick of a run's start are read again.
    time.sleep(0.1)
    return folder


def killed(commands: Commands, *words: str | Path, when: Callable[[], bool]) -> bool:
    """Start a command and kill it when something holds; tell whether it still ran then."""
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], env=commands.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and not when():
        assert time.monotonic() < end
        time.sleep(0.002)
    ran = process.poll() is None
    process.kill()
    process.wait()
    return ran


def packs(commands: Commands) -> int:
    folder = commands.repository / "packs"
    return sum(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*")) if folder.is_dir() else 0


def test_killed_backup_goes_on(made: Commands, volume: Path, tmp_path: Path) -> None:
    assert killed(made, "volume", "backup", volume, "--memory-limit", "64MiB", when=lambda: packs(made) >= 3)
    stored = packs(made)
    summary = made.json("volume", "backup", volume, "--memory-limit", "64MiB")[-1]
    assert summary["bytes_resumed"] > 0 and summary["files_resumed"] > 0 and stored >= 3, summary
    assert summary["bytes_read"] + summary["bytes_resumed"] == SIZE_BYTES == summary["bytes_total"], summary
    assert summary["files_new"] == summary["files_total"] == 65
    made.run("repo", "check", "--read-data")
    made.run("volume", "restore", "latest", tmp_path / "back")
    assert_same(volume, tmp_path / "back")
    again = made.json("volume", "backup", volume)[-1]
    assert again["bytes_read"] == again["bytes_resumed"] == 0


def test_killed_restore_goes_on_and_leaves_nothing(made: Commands, volume: Path, tmp_path: Path) -> None:
    made.run("volume", "backup", volume)
    back = tmp_path / "back"
    (back / "small").mkdir(parents=True)
    for number in range(64):
        (back / "small" / f"f{number:02}").write_bytes(b"old")
    tenant = back / "small" / ".longshore-restore-0123456789ab-0"
    tenant.write_bytes(b"a tenant's")

    def half() -> bool:
        return sum((back / "small" / f"f{number:02}").stat().st_size == MIB for number in range(64)) >= 8

    assert killed(made, "volume", "restore", "latest", back, when=half)
    words = made.run("volume", "restore", "latest", back).stdout
    assert "taken from the interrupted run" in words
    assert [path.name for path in back.rglob(".longshore-restore-*")] == [
        tenant.name
    ] and tenant.read_bytes() == b"a tenant's"
    tenant.unlink()
    # The directory's times moved with the tenant's file, which is not the restore's to answer for.
    made.run("volume", "restore", "latest", back)
    assert_same(volume, back)
