"""A filesystem made anew for what is restored.

ext4 passes over inodes that were freed within the last minute one by one, and within the last six while the table they lie in waits
to be written: a restore that follows the removal of a large tree pays for the removal, more or less by chance. So each timed restore
gets an ext4 of its own in a sparse file, through a loop device without a second page cache. Promises that nothing stays mounted.
Does not know what is restored.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_BYTES_A_FILE = 8 << 10
_MORE_BYTES = 512 << 20


class Disk:
    """The filesystem at `<work>/disk`, out of the file `<work>/disk.img`."""

    def __init__(self, work: Path) -> None:
        """Prepare; nothing is made yet.

        Args:
            work: a folder on a filesystem with room for what is restored.
        """
        self._image = work / "disk.img"
        self._mounted_at = work / "disk"

    @property
    def target(self) -> Path:
        """A folder in it that does not exist yet."""
        return self._mounted_at / "target"

    def renew(self, *, files: int, size_bytes: int) -> None:
        """Take it away and make another that holds this much.

        Raises:
            OSError: this machine or user cannot; nothing is left behind.
        """
        self.remove()
        self._mounted_at.mkdir(exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(size_bytes * 5 // 4 + files * _BYTES_A_FILE + _MORE_BYTES)
        # Tables written now, not by the kernel beside what is timed.
        options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        inodes = str(files * 5 // 4 + 10_000)
        try:
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-N", inodes, "-E", options, str(self._image))
            device = _run("losetup", "--find", "--show", "--direct-io=on", str(self._image))
            try:
                _run("mount", device, str(self._mounted_at))
            finally:
                # Goes by itself once it is not mounted any more.
                _run("losetup", "--detach", device)
        except OSError:
            self.remove()
            raise
        os.sync()

    def remove(self) -> None:
        """Take it away; nothing happens when it is not there."""
        if self._mounted_at.is_mount():
            _run("umount", str(self._mounted_at))
        self._image.unlink(missing_ok=True)
        if self._mounted_at.exists():
            self._mounted_at.rmdir()


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()
