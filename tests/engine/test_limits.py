"""Limits that repositories share, and how threads of jobs stand beside others, as the kernel tells."""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from pathlib import Path

import pytest

from longshore import datapath
from longshore.errors import UsageError
from tests.engine.conftest import PATIENCE_SECONDS, done, write_key

KIB = 1 << 10
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
IDLE, BEST_EFFORT = 3, 2
CLASS_SHIFT = 13


def repository(folder: Path, limits: datapath.Limits) -> datapath.Repository:
    folder.mkdir()
    return datapath.init(datapath.FolderStore(str(folder / "repository")), write_key(folder / "key"), limits=limits)


def filled(folder: Path, size_bytes: int) -> str:
    folder.mkdir()
    (folder / "file").write_bytes(random.Random(1).randbytes(size_bytes))
    return str(folder)


def backup(opened: datapath.Repository, path: str) -> datapath.Job[datapath.BackupResult]:
    return opened.backup(datapath.BackupOptions(path, source="v", workers=2))


def test_what_one_repository_sends_holds_a_job_of_another_until_the_limit_is_lifted(tmp_path: Path) -> None:
    limits, its_own = datapath.Limits(), datapath.Limits()
    one, other = repository(tmp_path / "one", limits), repository(tmp_path / "other", limits)
    alone = repository(tmp_path / "alone", its_own)
    large, small = filled(tmp_path / "large", 16 << 20), filled(tmp_path / "small", 4 * KIB)
    # All that the small backup sends is below a second's worth of this rate, which for the large one is nine minutes.
    for each in (limits, its_own):
        each.set(upload_bytes_per_second=32 * KIB)
    first = backup(one, large)
    packs = tmp_path / "one" / "repository" / "packs"
    end = time.monotonic() + PATIENCE_SECONDS
    while not any(path.stat().st_size > 1 << 20 for path in packs.rglob("*") if path.is_file()):
        assert time.monotonic() < end and not first.wait(0.01)
    assert done(backup(alone, small)).exit_code == 0
    second = backup(other, small)
    assert not second.wait(1.0), "its repository sends as if it were alone"
    assert not first.wait(0.0)
    limits.set()
    assert done(first).exit_code == done(second).exit_code == 0


def threads() -> dict[str, int]:
    """Each thread of ours with its niceness."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text().rpartition(") ")
        except FileNotFoundError:
            continue
        found[f"{task.name} {name.partition('(')[2]}"] = int(rest.split()[16])
    return found


def io_class(task: int) -> int:
    number = IOPRIO_GET[os.uname().machine]
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, 1, task)) >> CLASS_SHIFT


@pytest.mark.parametrize(("word", "wanted"), [("idle", IDLE), ("best-effort", BEST_EFFORT)])
def test_threads_of_a_job_are_nice_and_no_others(tmp_path: Path, word: str, wanted: int) -> None:
    before, io_before = os.getpriority(os.PRIO_PROCESS, 0), io_class(threading.get_native_id())
    limits = datapath.Limits(nice=max(before, 13), ionice=word)
    opened = repository(tmp_path / "one", limits)
    limits.set(upload_bytes_per_second=1)
    job = backup(opened, filled(tmp_path / "large", 4 << 20))
    try:
        seen: set[str] = set()
        end = time.monotonic() + PATIENCE_SECONDS
        while len(seen) < 3:
            assert time.monotonic() < end, sorted(seen)
            for name, nice in threads().items():
                task, _, kind = name.partition(" ")
                if kind.startswith(("longshore-backu", "backup-", "upload-")):
                    # The first thread says so itself, a moment after it began; those that it starts have it from their first.
                    if nice == max(before, 13) and io_class(int(task)) == wanted:
                        seen.add(kind.rstrip("0123456789"))
                    else:
                        assert kind.startswith("longshore-backu"), (name, nice)
        ours = threading.get_native_id()
        assert os.getpriority(os.PRIO_PROCESS, ours) == before
        assert io_class(ours) == io_before
        assert all(nice == before for name, nice in threads().items() if "backu" not in name and "upload" not in name)
    finally:
        job.cancel()
        job.wait(PATIENCE_SECONDS)


def test_what_is_no_niceness_or_class_is_refused() -> None:
    for nice in (-1, 20):
        with pytest.raises(UsageError, match="not a niceness"):
            datapath.Limits(nice=nice)
    with pytest.raises(UsageError, match="class of I/O"):
        datapath.Limits(ionice="realtime")
