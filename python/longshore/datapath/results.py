"""What comes out of the data path: frozen values, copied once from the extension.

`bytes_*` count bytes, `files_*` regular files, `items_*` entries of any kind. Paths inside a volume are bytes without a leading slash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

__all__ = [
    "BackupResult",
    "KeySlot",
    "LostItem",
    "Progress",
    "RepositoryStatus",
    "Snapshot",
    "SnapshotList",
    "adopt",
]

T = TypeVar("T")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LostItem:
    """An item that was not captured, or not restored whole."""

    path: bytes
    reason: str
    """Sorted: `unreadable`, `cut-short`, `name-too-long` or `other` of a backup; see :class:`RestoreResult` for a restore's."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counters of a job as they were a moment ago; totals grow while the volume is still being walked."""

    stage: str
    """`preparing`, `running`, `committing` or `finished`."""
    files_total: int
    files_done: int
    bytes_total: int
    bytes_done: int
    """Bytes of files done, read or not."""
    bytes_moved: int
    """Bytes read from the volume, or written to it."""
    bytes_stored: int
    """Bytes sent to the store, or fetched from it."""
    items_lost: int
    current: str
    """The item at work, for people: what is not UTF-8 in it is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupResult:
    """What a backup did."""

    snapshot_id: str | None
    """`ls0-` and 32 hexadecimal digits; None for a dry run."""
    parent_id: str | None
    files_total: int
    directories: int
    others: int
    files_new: int
    files_changed: int
    files_unchanged: int
    bytes_total: int
    bytes_read: int
    bytes_stored: int
    seconds: float
    items_lost: int
    items_changed: int
    """Files that changed while they were read; they are kept as last read, and read again next time."""
    items_vanished: int
    """Entries that went between being listed and being opened; no part of the snapshot."""
    lost: list[LostItem]
    """The first thousand."""
    changed: list[bytes]
    """The first thousand."""
    exit_code: int
    """0, or 3 when something was not captured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot and what it says of itself."""

    id: str
    source: str
    parent_id: str | None
    tags: dict[str, str]
    started_nanos: int
    """Since 1970-01-01 UTC."""
    ended_nanos: int
    host: str
    path: bytes
    """The directory that was read, on its host."""
    program: str
    files_total: int
    directories: int
    others: int
    files_new: int
    files_changed: int
    files_unchanged: int
    bytes_total: int
    bytes_read: int
    bytes_stored: int
    items_lost: int
    items_changed: int
    lost: list[LostItem]
    changed: list[bytes]

    @property
    def started(self) -> datetime:
        """When it began, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.started_nanos // 1000)

    @property
    def ended(self) -> datetime:
        """When it ended, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.ended_nanos // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotList:
    """All snapshots of a repository that count."""

    rows: list[Snapshot]
    """Oldest first."""
    damaged: list[tuple[str, str]]
    """Id and message of those that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlot:
    """One holder of a repository's master key."""

    name: str
    kind: str
    """`key` or `passphrase`."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryStatus:
    """What a repository holds."""

    id: str
    format_version: int
    created_nanos: int
    packs: int
    pack_bytes: int
    chunks: int
    """Chunks that the index names."""
    snapshots: int
    snapshots_damaged: int
    slots: int
    index_damaged: int
    """Index segments that cannot be read; pack headers stand in for them."""

    @property
    def created(self) -> datetime:
        """When it was made, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.created_nanos // 1000)


def adopt(make: Callable[..., T], native: object) -> T:
    """Copy a result of the extension into the dataclass `make`, field by field of the same name."""
    values: dict[str, Any] = {f.name: getattr(native, f.name) for f in fields(make)}  # type: ignore[arg-type]  # a dataclass
    if "lost" in values:
        values["lost"] = _lost(values["lost"])
    if "tags" in values:
        values["tags"] = dict(values["tags"])
    return make(**values)


def _lost(items: Sequence[tuple[bytes, str, str]]) -> list[LostItem]:
    return [LostItem(*item) for item in items]
