"""What the control plane asks of an object store, and what is true of every location whatever store it lies in.

Keys are relative to the location's prefix, so nobody above can reach past it. A "folder" is a key prefix that ends with a slash and below which at least one
object lies. Objects here are small (backup metadata, results, requests); repository data goes through the data path instead.

It does not know any particular store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

from longshore.errors import DeniedError, UsageError

__all__ = [
    "OBJECT_SIZE_BYTES_MAX",
    "TOP_LEVEL_FOLDERS",
    "ObjectStore",
    "check_key",
    "check_prefix",
    "refuse_write",
    "validate_layout",
]

TOP_LEVEL_FOLDERS: Final = ("backups", "kopia", "metadata", "plugins", "restic", "restores")
"""What Velero admits at the top of a location; anything else makes the location Unavailable."""
OBJECT_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
"""More is never read into memory unless the caller says so."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_KEY_LENGTH_BYTES_MAX: Final = 1024
_NAMED_MAX: Final = 5


class ObjectStore(Protocol):
    """Objects by key at one storage location.

    Every method may raise StoreUnavailableError (later it may work), StoreDeniedError (the credentials or rights must change first), UsageError (a setting of
    the location is wrong) and NoSpaceError; NotFoundError when the bucket or folder itself is gone.
    """

    @property
    def url(self) -> str:
        """The location, for messages."""
        ...

    def probe(self) -> tuple[str, ...]:
        """Reach the store and list the names of the folders at the location's top, sorted, without slashes."""
        ...

    def list_common_prefixes(self, prefix: str) -> tuple[str, ...]:
        """List the folders right below a folder, as `prefix` + name + `/`, sorted.

        Args:
            prefix: empty for the top, else ending with a slash.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """List all keys below a folder, however deep, in order of their names."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        ...

    def get(self, key: str, *, size_bytes_max: int = OBJECT_SIZE_BYTES_MAX) -> bytes:
        """Fetch an object.

        Raises:
            NotFoundError: there is none.
            UnsupportedError: it is longer than `size_bytes_max`.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store an object, in place of one that is there; readers see the old or the new one whole.

        Raises:
            DeniedError: the location is ReadOnly.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone is no error.

        Raises:
            DeniedError: the location is ReadOnly.
        """
        ...

    def close(self) -> None:
        """Let go of connections and temporary files."""
        ...


def check_key(key: str) -> str:
    """Let a key pass that names an object below the location and nothing else.

    Raises:
        UsageError: it is empty, too long, ends with a slash, or has a segment by which it could leave its folder.
    """
    parts = key.split("/")
    if (
        any(part in {"", ".", ".."} for part in parts)
        or _CONTROL.search(key)
        or len(key.encode(errors="replace")) > _KEY_LENGTH_BYTES_MAX
    ):
        raise UsageError(f"not a key of an object: key={key!r}")
    return key


def check_prefix(prefix: str) -> str:
    """Let a folder's prefix pass: empty, or a key and a slash.

    Raises:
        UsageError: it is neither.
    """
    if prefix and not prefix.endswith("/"):
        raise UsageError(f"a folder's prefix ends with a slash: prefix={prefix!r}")
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def refuse_write(*, location: str, key: str) -> DeniedError:
    """Make the error for a write to a ReadOnly location."""
    return DeniedError(
        f"the storage location is read-only: location={location}, key={key}",
        "set spec.accessMode to ReadWrite, or choose another location",
    )


def validate_layout(store: ObjectStore) -> tuple[str, ...]:
    """Reach a location and check that it belongs to backups alone, as Velero does.

    Returns:
        The folders at its top.

    Raises:
        UsageError: there are folders at the top that Velero does not admit; each is named.
    """
    folders = store.probe()
    if strangers := [name for name in folders if name not in TOP_LEVEL_FOLDERS]:
        named = ", ".join(strangers[:_NAMED_MAX]) + (
            f" and {len(strangers) - _NAMED_MAX} more" if len(strangers) > _NAMED_MAX else ""
        )
        raise UsageError(
            f"the storage location holds other folders at its top: url={store.url}, folders=[{named}]",
            f"give backups a bucket or a prefix of their own; only these may be at its top: {', '.join(TOP_LEVEL_FOLDERS)}",
        )
    return folders
