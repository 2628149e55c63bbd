"""`demo-data/`: all that the demo writes, and what stays of it.

Promises: it is wiped only when it is empty or the demo made it, which a marker file tells, and while no other demo is at work in it: each holds a lock on
that file for as long as it lives. Nothing outside it is written. Sizes are counted from the files themselves, so that what the demo says of the repository
does not rest on the program that wrote it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.oracle.make_tree import remove_tree

__all__ = ["DemoError", "Folder", "size_of_tree"]

_MARKER = ".made-by-longshore-demo"


class DemoError(Exception):
    """The demo cannot go on, or has found a difference.

    Args:
        message: what is wrong.
        next_step: what to do.
        exit_code: what the process ends with.
    """

    def __init__(self, message: str, next_step: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.exit_code = exit_code


class Folder:
    """The demo's own folder."""

    def __init__(self, path: Path) -> None:
        """Name it; nothing is touched before `wipe`."""
        # Storage locations refuse paths that lead through a link.
        self.path = path.parent.resolve() / path.name
        self.store = self.path / "store"
        self.recovery_key = self.path / "recovery.key"
        self.reference = self.path / "reference"
        self._lock = -1

    def holds_something(self) -> bool:
        """Whether an earlier run left anything.

        Raises:
            DemoError: what is there was not made by the demo.
        """
        if not os.path.lexists(self.path):
            return False
        if self.path.is_symlink() or not self.path.is_dir():
            raise DemoError(f"it is in the way: {self.path}", "move it elsewhere", exit_code=2)
        if not any(self.path.iterdir()):
            return False
        if not (self.path / _MARKER).is_file():
            raise DemoError(
                f"the folder was not made by the demo, so it is not wiped: {self.path}",
                "move it elsewhere",
                exit_code=2,
            )
        return True

    def take(self) -> None:
        """Keep every other demo out of it until this process ends; makes it when it is not there.

        Raises:
            DemoError: another one is at work in it.
        """
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self.path / _MARKER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise DemoError(
                f"another demo is at work in this folder: folder={self.path}, process={holder}",
                "wait for its end, or end it with Ctrl-C, then say it again; a second clone has a folder of its own",
                exit_code=2,
            ) from err
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def wipe(self) -> None:
        """Make it empty, with a store in it; it has to be taken."""
        assert self._lock >= 0
        for one in self.path.iterdir():
            # The marker is the lock: another file of that name would be another lock.
            if one.name == _MARKER:
                continue
            if one.is_dir() and not one.is_symlink():
                remove_tree(one)
            else:
                one.unlink()
        self.store.mkdir(mode=0o700)

    def repository(self, namespace: str) -> Path:
        """Where the repository of a namespace comes to lie in the storage location."""
        return self.store / "plugins" / "longshore" / namespace

    def tidy(self, *names: str) -> None:
        """Remove what nobody needs once all has been compared."""
        for name in names:
            remove_tree(self.path / name)

    def check_room(self, needed_bytes: int) -> None:
        """See that the disk can hold it.

        Raises:
            DemoError: it cannot.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            raise DemoError(
                f"not enough room on the disk: folder={self.path}, free_bytes={free}, needed_bytes={needed_bytes}",
                "free some space, or name a smaller SOURCE",
                exit_code=2,
            )


def size_of_tree(path: Path) -> int:
    """Add up the lengths of all files below a folder; what vanishes meanwhile, as temporary files do, is not counted."""
    return sum(entry.st_size for entry in _states(path) if stat.S_ISREG(entry.st_mode))


def room_of_tree(path: Path) -> int:
    """Add up what all files below a folder take on the disk: of a file that grows, what is written so far."""
    return sum(entry.st_blocks * 512 for entry in _states(path) if stat.S_ISREG(entry.st_mode))


def _states(path: Path) -> Iterator[os.stat_result]:
    todo = [os.fsencode(path)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        try:
                            yield entry.stat(follow_symlinks=False)
                        except OSError:
                            continue
        except OSError:
            continue
