"""Which folders may hold a filesystem location: not the volumes that we back up, and nothing that is ours.

Promises: a folder that passed is absolute, written in its one normal form, has no symbolic link in its path, is there, and neither lies in nor above a
forbidden folder, not even through a bind mount. Tenants own every name below the pods root; a repository there would be theirs to read and to rewrite, and
would be backed up into itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from longshore.errors import StoreUnavailableError, UsageError

__all__ = ["Refuse", "check_folder"]

_FIELD = "config.path"


class Refuse(Protocol):
    """Makes the error for a field, see :meth:`longshore.objectstore.fields.Fields.refuse`."""

    def __call__(self, field: str, cause: str, *, next_step: str, value: str | None = None) -> UsageError:
        """Give the error."""
        ...


def check_folder(text: str, *, forbidden: Iterable[Path], refuse: Refuse) -> Path:
    """Check the path of a filesystem location.

    Args:
        text: as the operator wrote it.
        forbidden: folders that it may not overlap with; of one that does not exist yet, what is above it counts.
        refuse: makes the error for a wrong field.

    Returns:
        The path itself.

    Raises:
        UsageError: the path is not one that can be used.
        StoreUnavailableError: nothing is there, or it cannot be looked at.
    """
    # POSIX leaves two leading slashes to the system, and normpath keeps them.
    if not text.startswith("/") or text.startswith("//") or os.path.normpath(text) != (text.rstrip("/") or "/"):
        step = "write it from the root on, without `.`, `..` or double slashes"
        raise refuse(_FIELD, "the path is not absolute and normal", next_step=step, value=text)
    path = Path(text)
    try:
        real = Path(os.path.realpath(path, strict=True))
        mode = path.stat().st_mode
    except OSError as err:
        raise StoreUnavailableError(
            f"the storage location's folder cannot be opened: field={_FIELD}, value={text!r}, error={err.strerror}",
            "mount or create the folder at that path in the server's and every agent's pod",
        ) from err
    if real != path:
        step = f"write the folder's own path, {real}"
        raise refuse(_FIELD, "the path leads through a symbolic link", next_step=step, value=text)
    if not stat.S_ISDIR(mode):
        raise refuse(_FIELD, "it is not a folder", next_step="write the path of a folder", value=text)
    for folder in forbidden:
        if _overlap(path, folder):
            raise refuse(
                _FIELD,
                f"the folder lies in or above {folder}, which holds the pods' volumes or our own files",
                next_step="choose a folder apart from it",
                value=text,
            )
    return path


def _overlap(path: Path, folder: Path) -> bool:
    """Compare by device and inode, which also know a folder under the other name that a bind mount gives it."""
    folder = Path(os.path.realpath(folder))
    return bool(_places(path) & _places(folder, *folder.parents)) or bool(
        _places(folder) & _places(path, *path.parents)
    )


def _places(*folders: Path) -> set[tuple[int, int]]:
    found = set()
    for folder in folders:
        try:
            status = folder.stat()
        except FileNotFoundError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found
