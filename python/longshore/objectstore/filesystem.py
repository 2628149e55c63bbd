"""An object store in a folder or NAS mount.

Promises: no symbolic link is ever followed, and nothing outside the folder is touched: every path is walked from the folder's descriptor, name by name. A put
is whole or not there (temporary file, fsync, rename, fsync of the folder). An empty folder is no folder: as in a bucket, only objects make one.

Names that start with a dot at the top (a NAS server's `.snapshot`) and our own temporary files are nobody's objects.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from longshore.errors import (
    LongshoreError,
    NoSpaceError,
    NotFoundError,
    StoreDeniedError,
    StoreUnavailableError,
    UnsupportedError,
    UsageError,
)
from longshore.objectstore.folders import check_folder
from longshore.objectstore.settings import FilesystemSettings
from longshore.objectstore.store import OBJECT_SIZE_BYTES_MAX, check_key, check_prefix, refuse_write

__all__ = ["FilesystemStore"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY: Final = ".longshore-tmp-"


class FilesystemStore:
    """The store of a filesystem location."""

    def __init__(self, settings: FilesystemSettings) -> None:
        """Keep the settings; nothing is opened yet."""
        self._settings = settings
        self._top = tuple(part for part in (settings.bucket, *settings.prefix.split("/")) if part)

    @property
    def url(self) -> str:
        """The location, for messages."""
        return self._settings.url

    def probe(self) -> tuple[str, ...]:
        """See :class:`longshore.objectstore.store.ObjectStore`. A top that does not exist yet is an empty one; `config.path` must be there."""
        return tuple(one.removesuffix("/") for one in self.list_common_prefixes("") if not one.startswith("."))

    def list_common_prefixes(self, prefix: str) -> tuple[str, ...]:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        parts = _parts(check_prefix(prefix))
        with self._translated(prefix):
            try:
                with self._folder(parts) as folder:
                    found = [name for name, is_folder in _entries(folder) if is_folder and _holds_object(folder, name)]
            except FileNotFoundError:
                return ()
        return tuple(f"{prefix}{name}/" for name in found)

    def list(self, prefix: str) -> Iterator[str]:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        parts = _parts(check_prefix(prefix))
        with self._translated(prefix):
            try:
                with self._folder(parts) as folder:
                    yield from (prefix + key for key in _walk(folder))
            except FileNotFoundError:
                return

    def exists(self, key: str) -> bool:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        *parts, name = check_key(key).split("/")
        with self._translated(key):
            try:
                with self._folder(parts) as folder:
                    return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def get(self, key: str, *, size_bytes_max: int = OBJECT_SIZE_BYTES_MAX) -> bytes:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        *parts, name = check_key(key).split("/")
        with self._translated(key):
            # Non-blocking, so that a FIFO put there by somebody cannot hold us up.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            with self._folder(parts) as folder, os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise NotFoundError(f"the object is no file: url={self.url}, key={key}")
                data = file.read(size_bytes_max + 1)
        if len(data) > size_bytes_max:
            raise UnsupportedError(
                f"the object is longer than expected: url={self.url}, key={key}, size_bytes_max={size_bytes_max}"
            )
        return data

    def put(self, key: str, data: bytes) -> None:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        if self._settings.read_only:
            raise refuse_write(location=self._settings.location, key=key)
        *parts, name = check_key(key).split("/")
        with self._translated(key), self._folder(parts, create=True) as folder:
            temporary = _TEMPORARY + secrets.token_hex(16)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)

    def delete(self, key: str) -> None:
        """See :class:`longshore.objectstore.store.ObjectStore`."""
        if self._settings.read_only:
            raise refuse_write(location=self._settings.location, key=key)
        *parts, name = check_key(key).split("/")
        with self._translated(key):
            try:
                with self._folder(parts) as folder:
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
            except FileNotFoundError:
                return

    def close(self) -> None:
        """Nothing is held open between calls."""

    @contextlib.contextmanager
    def _folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Open a folder below the top, name by name."""
        path = check_folder(str(self._settings.path), forbidden=self._settings.forbidden, refuse=self._refuse)
        # From the root on and name by name, so that nothing can turn into a link after it was checked.
        folder = os.open(path.anchor, _FOLDER)
        given = path.parts[1:]
        try:
            for place, part in enumerate((*given, *self._top, *parts)):
                if create and place >= len(given):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=folder)
                        os.fsync(folder)
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _refuse(self, field: str, cause: str, *, next_step: str, value: str | None = None) -> UsageError:
        return UsageError(
            f"the storage location cannot be used, {cause}: location={self._settings.location}, field={field}, value={value!r}",
            next_step,
        )

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise self._error(key, err) from err

    def _error(self, key: str, err: OSError) -> LongshoreError:
        about = f"url={self.url}, key={key}, error={err.strerror}"
        match err.errno:
            case errno.ENOENT:
                return NotFoundError(f"the object is not there: {about}")
            case errno.ENOTDIR | errno.ELOOP | errno.EISDIR:
                return NotFoundError(
                    f"the object is not a file in plain folders: {about}", "remove what stands in its place"
                )
            case errno.EACCES | errno.EPERM | errno.EROFS:
                step = "give the server and the agents the right to read and write there"
                return StoreDeniedError(f"the storage location's folder refuses: {about}", step)
            case errno.ENOSPC | errno.EDQUOT:
                return NoSpaceError(f"the storage location is full: {about}", "free space, or raise the quota")
            case _:
                return StoreUnavailableError(
                    f"the storage location's folder does not answer: {about}", "check the mount; it is tried again"
                )


def _parts(prefix: str) -> tuple[str, ...]:
    return tuple(part for part in prefix.split("/") if part)


def _entries(folder: int) -> list[tuple[str, bool]]:
    """List names and whether each is a folder, sorted as keys sort; links, devices and temporary files are left out."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or (entry.is_file(follow_symlinks=False) and not entry.name.startswith(_TEMPORARY)):
                found.append((entry.name, is_folder))
    return sorted(found, key=lambda one: one[0] + ("/" if one[1] else ""))


def _walk(folder: int) -> Iterator[str]:
    for name, is_folder in _entries(folder):
        if not is_folder:
            yield name
            continue
        with contextlib.suppress(FileNotFoundError), _inner(folder, name) as inner:
            yield from (f"{name}/{key}" for key in _walk(inner))


def _holds_object(folder: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError), _inner(folder, name) as inner:
        return next(_walk(inner), None) is not None
    return False


@contextlib.contextmanager
def _inner(folder: int, name: str) -> Iterator[int]:
    inner = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield inner
    finally:
        os.close(inner)
