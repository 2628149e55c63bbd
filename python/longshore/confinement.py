"""Takes from this process the right to write below a folder, for good: Landlock.

An agent that only backs up has the pods folder mounted read-only, but each persistent volume below it is a mount of its own, which that does not reach.
Landlock judges by the path by which a file is reached, through mounts, those of later too; so what is refused below the folder is refused on all of them.

Promises: afterwards no file below the folder can be opened for writing, made, removed, renamed or linked by this process and all that it starts,
and nothing can be made or removed in the folders that lead to it; where the kernel judges that, which the caller is told, none can be cut short either.
Elsewhere nothing changes. What Landlock does not judge stays as capabilities and owners have it: modes, owners, times and extended attributes.

It binds the thread that asks and those that it starts from then on, so it has to be asked before there is a second one. It does not know what the folder is
for.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from longshore.errors import InternalError, UnsupportedError

__all__ = ["forbid_writing_below"]

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
"""System calls; the numbers are the same on every processor."""
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_OLDEST: Final = 2
"""Version of Landlock in which a file may be linked or moved from one folder into another; before that it never may, and the cache could not be written."""
_TRUNCATE_SINCE: Final = 3
"""Version in which cutting a file short is judged, also where it is opened for reading only: Linux 6.2."""
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
# Remove a folder or file; make a device, folder, file, socket, FIFO, link; move between folders.
_CHANGE_FOLDER: Final = sum(1 << bit for bit in range(4, 14))


def forbid_writing_below(folder: Path) -> bool:
    """Give up writing below a folder.

    Returns:
        Whether files cannot be cut short either: not in Linux 5.19 to 6.1, where those that this user may write still can.

    Raises:
        UnsupportedError: the kernel has no Landlock, or too old a one; nothing has changed.
        InternalError: it was asked too late, or the kernel refuses.
    """
    version: int = _LIBC.syscall(_CREATE, None, 0, _VERSION)
    if version < _OLDEST:
        raise UnsupportedError(
            f"the kernel's Landlock is missing or too old: version={version}, needed={_OLDEST}",
            "run Linux 5.19 or later with landlock in its list of security modules",
        )
    if (threads := sum(1 for _ in Path("/proc/self/task").iterdir())) > 1:
        raise InternalError(f"other threads would keep what this one gives up: threads={threads}")
    of_file = _WRITE_FILE | (_TRUNCATE if version >= _TRUNCATE_SINCE else 0)
    rules = _checked(_LIBC.syscall(_CREATE, struct.pack("=Q", of_file | _CHANGE_FOLDER), 8, 0), "made")
    try:
        # It can only be said what is allowed: all that does not lead to the folder.
        for place in _beside(folder.resolve()):
            try:
                handle = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:  # gone since it was listed: there is nothing to allow
                continue
            try:
                mode = os.fstat(handle).st_mode
                if stat.S_ISLNK(mode):
                    continue
                allowed = of_file | _CHANGE_FOLDER if stat.S_ISDIR(mode) else of_file
                rule = struct.pack("=Qi", allowed, handle)
                _checked(_LIBC.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0), "extended")
            finally:
                os.close(handle)
        _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prepared")
        _checked(_LIBC.syscall(_RESTRICT, rules, 0), "applied")
    finally:
        os.close(rules)
    return version >= _TRUNCATE_SINCE


def _beside(folder: Path) -> Iterator[Path]:
    """What lies beside the folder and beside each folder above it."""
    for below in (folder, *folder.parents):
        if below != below.parent:
            yield from (place for place in below.parent.iterdir() if place != below)


def _checked(answer: int, done: str) -> int:
    if answer < 0:
        raise InternalError(f"the Landlock rules cannot be {done}: error={os.strerror(ctypes.get_errno())}")
    return answer


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
