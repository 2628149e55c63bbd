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
    "CheckResult",
    "Entry",
    "EntryPage",
    "Finding",
    "HurtItem",
    "KeptPacks",
    "KeySlot",
    "LostItem",
    "PackFate",
    "Progress",
    "PruneResult",
    "RepairResult",
    "RepositoryStatus",
    "RestoreResult",
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
    """Of a backup: `unreadable`, `cut-short`, `name-too-long`, `other`. Of a restore: `damaged` in the repository, `refused` by the volume, `attribute` of an
    item that is there, `policy`."""
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
    begun_nanos: int
    """When the interrupted run began from which a check goes on; 0 when it goes on from none."""
    packs_known: int
    """Packs that were read then."""
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
    files_resumed: int
    """Files taken from a run that was interrupted, without reading any of them again; they count as new or changed all the same."""
    bytes_resumed: int
    """Bytes of files that an interrupted run had read and stored, and this one did not read."""
    hints_used: int
    """Files of which only a part was read, as a hint said."""
    hints_ignored: int
    """Hints that could not be relied on; their files were read."""
    bytes_hinted: int
    """Bytes that were not read because of hints."""
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
class RestoreResult:
    """What a restore did."""

    files_total: int
    """Regular files that are there now, second names included."""
    files_unchanged: int
    """Files whose content was there already."""
    directories: int
    others: int
    bytes_total: int
    bytes_written: int
    files_resumed: int
    """Those of `files_unchanged`, where an earlier restore of the snapshot into the target was interrupted."""
    bytes_resumed: int
    """Bytes that stood there then, and were neither fetched nor written."""
    extra_deleted: int
    """Entries removed because the snapshot does not have them."""
    seconds: float
    items_lost: int
    """Items and attributes that are not there as they were, but for those that the policy leaves out."""
    items_damaged: int
    """Those of them whose data is damaged or missing in the repository."""
    items_dropped: int
    """Items and attributes that the policy left out."""
    lost: list[LostItem]
    """The first thousand of each reason."""
    dropped: list[LostItem]
    """What the policy left out, the first thousand."""
    exit_code: int
    """0; 3 when something was lost; 4 when data in the repository is damaged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a repository that is not as it should be."""

    severity: str
    """`error` or `warning`."""
    object: str
    """Key of the object in the store."""
    message: str
    snapshots: list[str]
    """Ids of snapshots that it hurts, where that is known."""


@dataclass(frozen=True, slots=True)
class HurtItem:
    """A file or directory of a snapshot that damage hurts."""

    snapshot_id: str
    path: bytes
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found."""

    findings: list[Finding]
    """Errors first, a thousand at most."""
    errors: int
    warnings: int
    hurt: list[HurtItem]
    """The first thousand."""
    items_hurt: int
    snapshots: int
    """Snapshots looked at."""
    packs: int
    pack_bytes: int
    frames_read: int
    bytes_read: int
    packs_resumed: int
    """That an interrupted run had read, and this one did not read again."""
    bytes_resumed: int
    begun_nanos: int
    """When the first of the interrupted runs began; 0 when this one went on from none."""
    trees: int
    seconds: float
    exit_code: int
    """0, or 4 when there are errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """What a repair found and did; of a dry run, what it would do."""

    findings: list[Finding]
    """Errors first, a thousand at most."""
    errors: int
    warnings: int
    hurt: list[HurtItem]
    """What cannot be restored whole, the first thousand."""
    items_hurt: int
    snapshots: int
    """That count."""
    snapshots_hurt: int
    """With items that cannot be restored whole."""
    snapshots_touched: int
    """That damage touches; some of them may be whole all the same."""
    snapshots_damaged: int
    """Whose own object cannot be read."""
    slots_damaged: int
    """Keys whose holders cannot open the repository."""
    packs: int
    pack_bytes: int
    bytes_read: int
    packs_resumed: int
    """That an interrupted run had read, and this one did not read again."""
    bytes_resumed: int
    begun_nanos: int
    """When the first of the interrupted runs began; 0 when this one went on from none."""
    packs_damaged: int
    packs_indexed: int
    """That the index did not list, or wrongly, and lists now."""
    segments_written: int
    segments_deleted: int
    """That could not be read, or were wrong."""
    frames_moved: int
    """Out of packs whose header is damaged."""
    bytes_moved: int
    tables_rebuilt: int
    """Usage tables made again out of directories."""
    frames_lost: int
    """That lie nowhere whole."""
    chunks_missing: int
    """That snapshots need; a backup whose source still has them stores them again."""
    recorded: bool
    """What is lost was written down, for backups and prunes."""
    dry_run: bool
    seconds: float
    exit_code: int
    """0, or 4 when something is lost."""


@dataclass(frozen=True, slots=True)
class KeptPacks:
    """Packs of which the same becomes, for the same reason."""

    reason: str
    """Go: `unneeded`, `duplicate`, `repacked`. Stay: `waits-for-writers`, `in-use`, `partly-needed`, `repack-limit`, `damaged`, `refused`, `needed`."""
    packs: int
    bytes: int
    dead_bytes: int
    """Of these, needed by nobody."""


@dataclass(frozen=True, slots=True)
class PackFate:
    """One pack and what becomes of it."""

    object: str
    size_bytes: int
    needed_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a prune did; of a dry run, what it would do."""

    snapshots: int
    """That count."""
    readers: int
    """At work beside it."""
    packs_before: int
    bytes_before: int
    bytes_needed: int
    packs_deleted: int
    bytes_freed: int
    tables_deleted: int
    segments_deleted: int
    segments_written: int
    packs_repacked: int
    packs_written: int
    bytes_moved: int
    generations_done: int
    generations_waiting: int
    """Generations that a later prune carries on, because writers are open that were when they began."""
    waiting_for: list[tuple[str, str]]
    """Those writers: session and host."""
    fenced: list[str]
    """Sessions judged dead."""
    kept: list[KeptPacks]
    packs: list[PackFate]
    """The first ten thousand."""
    damaged: list[tuple[str, str]]
    """Object and what does not hold."""
    used_reserve: bool
    """The store was full."""
    seconds: float
    exit_code: int
    """0, or 4 when something is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of a snapshot."""

    path: bytes
    """From the snapshot's root."""
    kind: str
    """`directory`, `file`, `symlink`, `block-device`, `char-device`, `fifo` or `socket`."""
    mode: int
    """Permission bits, 12 of them."""
    uid: int
    gid: int
    size_bytes: int
    """Length of a file, else 0."""
    mtime_nanos: int
    """Since 1970-01-01 UTC."""
    inode: int
    linked: bool
    """Other names of the same file are in the snapshot."""
    target: bytes | None
    """Of a symbolic link."""
    device: tuple[int, int] | None
    """Major and minor number of a device."""
    xattrs: list[tuple[bytes, int]]
    """Names and lengths of extended attributes."""
    changed: bool
    """It changed while it was read."""
    incomplete: bool
    """Some of its content could not be read and is zeros."""

    @property
    def name(self) -> bytes:
        """The last component of its path."""
        return self.path.rpartition(b"/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPage:
    """Some entries of a snapshot, in the order of the walk: a directory before what is in it, names ascending."""

    rows: list[Entry]
    after: bytes | None
    """Hand it over to get the next page; None when this is the last."""
    damaged: list[tuple[bytes, str]]
    """Path and reason of directories of which some entries could not be read."""


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
    if "dropped" in values:
        values["dropped"] = _lost(values["dropped"])
    if "findings" in values:
        values["findings"] = [Finding(*finding) for finding in values["findings"]]
    if "hurt" in values:
        values["hurt"] = [HurtItem(*item) for item in values["hurt"]]
    if "kept" in values:
        values["kept"] = [KeptPacks(*kept) for kept in values["kept"]]
        values["packs"] = [PackFate(*pack) for pack in values["packs"]]
    if "tags" in values:
        values["tags"] = dict(values["tags"])
    return make(**values)


def _lost(items: Sequence[tuple[bytes, str, str]]) -> list[LostItem]:
    return [LostItem(*item) for item in items]
