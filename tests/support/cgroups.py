"""A control group of the kernel for programs that a test starts: so much memory, page cache included, and so many processors.

Promises: what runs by :meth:`Group.command` is in the group from its first step, and the group is gone when the test has ended. Both versions are
understood. Where root cannot make one :func:`tests.support.lacking.lacks` says what becomes of the test.

Does not know longshore.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.lacking import lacks

__all__ = ["Group", "group"]

_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000


@dataclass(frozen=True)
class Group:
    """One group, which in version 1 is a folder for each controller."""

    folders: tuple[Path, ...]

    def command(self, *words: str) -> list[str]:
        """Give the words that run a program in the group: a shell goes in and becomes the program."""
        enter = "".join(f"echo $$ >'{folder}/cgroup.procs' && " for folder in self.folders)
        return ["sh", "-c", enter + 'exec "$@"', "sh", *words]

    def oom_kills(self) -> int:
        """Count the processes that the kernel killed for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                if (folder / name).exists():
                    found = re.search(r"^oom_kill (\d+)$", (folder / name).read_text(), re.MULTILINE)
                    assert found is not None, f"{folder / name} counts no kills"
                    return int(found[1])
        raise AssertionError(f"the group does not bound memory: folders={self.folders}")

    def peak_bytes(self) -> int:
        """Give the most memory that was in use at once, page cache included."""
        for folder in self.folders:
            for name in ("memory.peak", "memory.max_usage_in_bytes"):
                if (folder / name).exists():
                    return int((folder / name).read_text())
        raise AssertionError(f"the group does not count memory: folders={self.folders}")


@contextlib.contextmanager
def group(*, memory_bytes: int | None = None, processors: int | None = None) -> Iterator[Group]:
    """Make a group with these bounds; None for none."""
    wanted: dict[str, dict[str, str]] = {}
    unified = (_CGROUPS / "cgroup.controllers").exists()
    if memory_bytes is not None:
        wanted["memory"] = {"memory.max" if unified else "memory.limit_in_bytes": str(memory_bytes)}
    if processors is not None:
        quota = str(processors * _PERIOD_MICROSECONDS)
        wanted["cpu"] = (
            {"cpu.max": f"{quota} {_PERIOD_MICROSECONDS}"}
            if unified
            else {"cpu.cfs_period_us": str(_PERIOD_MICROSECONDS), "cpu.cfs_quota_us": quota}
        )
    folders: list[Path] = []
    try:
        try:
            if unified:
                (_CGROUPS / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
            for name, files in wanted.items():
                if not unified or not folders:
                    folders.append(
                        Path(tempfile.mkdtemp(prefix="longshore-test-", dir=_CGROUPS if unified else _CGROUPS / name))
                    )
                for file, text in files.items():
                    (folders[-1] / file).write_text(text)
        except OSError as err:
            lacks(f"root cannot make control groups here: {err}")
        yield Group(tuple(folders))
    finally:
        for folder in folders:
            os.rmdir(folder)
