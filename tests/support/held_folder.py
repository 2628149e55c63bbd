"""Temporary folders that are taken away after whoever made them was killed: by the next one that needs such a folder.

Promises: a folder goes only when it has our name and our lock file, belongs to our user, is older than a minute, and nobody holds its lock. The kernel lets go
of a lock with the process that held it, in whatever container that ran, so a living run's folder is never touched; a process id could not tell that.

Does not know: what lies in a folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

_LOCK_NAME = ".held"
_PREFIX = "longshore-"
_YOUNG_SECONDS = 60.0


class HeldFolder:
    """A temporary folder of this process."""

    def __init__(self, kind: str) -> None:
        """Make it, after stale ones of its kind are gone.

        Args:
            kind: part of its name.
        """
        remove_stale(kind)
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
        self._lock = os.open(self.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Take it away; a second call does nothing."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def remove_stale(kind: str, *, folder: Path | None = None, now: float | None = None) -> list[Path]:
    """Take away what killed runs have left.

    Args:
        kind: as of the folders.
        folder: where to look; the folder for temporary files when not given.
        now: seconds since 1970, for tests.

    Returns:
        What was taken away.
    """
    gone = []
    for path in sorted((folder or Path(tempfile.gettempdir())).glob(f"{_PREFIX}{kind}-*")):
        if _is_stale(path, now=time.time() if now is None else now):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path)
    return gone


def _is_stale(path: Path, *, now: float) -> bool:
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or now - status.st_mtime < _YOUNG_SECONDS:
            return False
        handle = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
