"""What the controllers ask of the data path: the slice that they use, and no more.

:mod:`longshore.controllers.engine` gives it over :mod:`longshore.datapath`; tests give it from memory. Results are read by attribute, so the data path's own
classes fit as they are.

Promises of whoever implements it: `backup` and `restore` return at once with a job on threads of its own; a job's `result` raises the typed errors of
:mod:`longshore.errors`; an object of kind snapshot is visible either whole or not at all.

It does not know Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

from longshore.errors import UsageError
from longshore.objectstore.credentials import Credentials
from longshore.objectstore.settings import StoreSettings

if TYPE_CHECKING:
    from longshore.datapath import CheckResult, Counts, PruneResult, RepositoryStatus

__all__ = [
    "Allowance",
    "BackupRequest",
    "BackupResult",
    "DataPath",
    "Job",
    "KeySlot",
    "LostItem",
    "Place",
    "Progress",
    "Repository",
    "RestoreRequest",
    "RestoreResult",
    "RootKey",
    "RootKeyKind",
    "Snapshot",
    "allowances",
]

Result_co = TypeVar("Result_co", covariant=True)


class Allowance(StrEnum):
    """What a restore leaves out unless it is allowed, because it lends rights beyond owner and mode."""

    SETUID = "setuid"
    DEVICES = "devices"
    CAPABILITIES = "capabilities"


def allowances(text: str, *, field: str) -> frozenset[Allowance]:
    """Read a list of them, with commas between; `none` is the empty one.

    Args:
        field: where it stands, for messages.

    Raises:
        UsageError: a word is none of them.
    """
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return frozenset()
    try:
        return frozenset(Allowance(word) for word in words)
    except ValueError as err:
        raise UsageError(
            f"not what a restore may be allowed: field={field}, value={text[:80]!r}",
            f"write none, or some of {', '.join(Allowance)} with commas between",
        ) from err


class RootKeyKind(StrEnum):
    """What a key slot was made from."""

    SECRET = "secret"  # noqa: S105 - the name of a kind
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of a kind


@dataclass(frozen=True, slots=True)
class RootKey:
    """What opens a key slot; the bytes never show."""

    kind: RootKeyKind
    value: bytes = field(repr=False)
    origin: str = field(default="", compare=False)
    """Where it was found, for messages."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a repository lies, and with whose credentials it is reached."""

    settings: StoreSettings
    namespace: str
    """Whose volumes it holds."""
    read_only: bool = False
    """Nothing may be written, not even a marker."""
    credentials: Credentials | None = None
    region: str | None = None
    """Of the bucket, where the settings leave it to be looked up."""

    @property
    def url(self) -> str:
        """The repository, for messages."""
        return self.settings.repository_url(self.namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """One backup of one directory."""

    path: str
    source: str
    """Identity of the volume; snapshots of equal identity are compared."""
    host: str
    tags: Mapping[str, str]
    parent: str | None = None
    """None for the newest of the same source, `none` for a full read, or an id."""
    exclude_root_names: tuple[bytes, ...] = ()
    strict: bool = False
    workers: int | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """One restore into one directory that exists."""

    snapshot_id: str
    target: str
    host: str
    workers: int | None = None
    memory_limit_bytes: int | None = None
    restore_owner: bool = True
    allow: frozenset[Allowance] = frozenset()


class Progress(Protocol):
    """How far a job has come; totals grow while the volume is still being walked."""

    @property
    def files_total(self) -> int:
        """Entries found so far."""
        ...

    @property
    def files_done(self) -> int:
        """Entries done."""
        ...

    @property
    def bytes_total(self) -> int:
        """Bytes found so far."""
        ...

    @property
    def bytes_done(self) -> int:
        """Bytes done."""
        ...


class LostItem(Protocol):
    """One item that was not captured or not restored."""

    @property
    def path(self) -> bytes:
        """Its path below the root, as bytes."""
        ...

    @property
    def message(self) -> str:
        """Why."""
        ...


class BackupResult(Protocol):
    """What a backup came to."""

    @property
    def snapshot_id(self) -> str | None:
        """The snapshot; None when nothing was committed."""
        ...

    @property
    def parent_id(self) -> str | None:
        """What it was compared with."""
        ...

    @property
    def files_total(self) -> int:
        """Entries in the snapshot."""
        ...

    @property
    def bytes_total(self) -> int:
        """Bytes of all files in it."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes that had to be read."""
        ...

    @property
    def bytes_stored(self) -> int:
        """Bytes sent to the store."""
        ...

    @property
    def files_resumed(self) -> int:
        """Files taken from an attempt that was interrupted."""
        ...

    @property
    def bytes_resumed(self) -> int:
        """Their bytes, and those of large files in part."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...

    @property
    def items_lost(self) -> int:
        """How many items were not captured."""
        ...

    @property
    def items_changed(self) -> int:
        """How many files changed while they were read."""
        ...

    @property
    def lost(self) -> Sequence[LostItem]:
        """The first of the lost items."""
        ...

    @property
    def changed(self) -> Sequence[bytes]:
        """The first of the changed files."""
        ...

    @property
    def exit_code(self) -> int:
        """0 when all is well, 3 when items are missing."""
        ...


class RestoreResult(Protocol):
    """What a restore came to."""

    @property
    def files_total(self) -> int:
        """Entries restored."""
        ...

    @property
    def bytes_total(self) -> int:
        """Bytes of all files."""
        ...

    @property
    def bytes_written(self) -> int:
        """Bytes that had to be written."""
        ...

    @property
    def files_resumed(self) -> int:
        """Files taken from an attempt that was interrupted."""
        ...

    @property
    def bytes_resumed(self) -> int:
        """Their bytes, and those of large files in part."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took."""
        ...

    @property
    def items_lost(self) -> int:
        """How many items were not restored."""
        ...

    @property
    def lost(self) -> Sequence[LostItem]:
        """The first of the lost items."""
        ...

    @property
    def items_dropped(self) -> int:
        """How many items or attributes the policy left out."""
        ...

    @property
    def dropped(self) -> Sequence[LostItem]:
        """The first of those."""
        ...

    @property
    def exit_code(self) -> int:
        """0 when all is well, 3 when items are missing, 4 when data did not verify."""
        ...


class Job(Protocol[Result_co]):
    """Work under way on threads of the data path."""

    def progress(self) -> Progress:
        """How far it has come."""
        ...

    def cancel(self) -> None:
        """Ask it to stop; it ends soon, and its result raises CancelledError unless it was done already."""
        ...

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait for its end; true when it is over."""
        ...

    def result(self) -> Result_co:
        """What it came to.

        Raises:
            LongshoreError: why it came to nothing.
        """
        ...


class Snapshot(Protocol):
    """A snapshot as the repository lists it."""

    @property
    def id(self) -> str:
        """`ls0-` and 32 hexadecimal digits."""
        ...

    @property
    def source(self) -> str:
        """Identity of the volume."""
        ...

    @property
    def started_nanos(self) -> int:
        """When it began, since 1970-01-01 UTC, by the clock of its node."""
        ...

    @property
    def tags(self) -> Mapping[str, str]:
        """What it was tagged with."""
        ...

    @property
    def files_total(self) -> int:
        """Entries in it."""
        ...

    @property
    def bytes_total(self) -> int:
        """Bytes of all files in it."""
        ...

    @property
    def items_lost(self) -> int:
        """How many items were not captured."""
        ...


class KeySlot(Protocol):
    """One holder of the master key."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def kind(self) -> str:
        """`secret` or `passphrase`."""
        ...

    @property
    def label(self) -> str:
        """What it was called when it was added."""
        ...


class Repository(Protocol):
    """An open repository."""

    @property
    def id(self) -> str:
        """Its id, the same for its whole life."""
        ...

    @property
    def slot(self) -> str:
        """The name of the key slot through which it was opened."""
        ...

    def snapshots(self) -> Sequence[Snapshot]:
        """All that count, oldest first."""
        ...

    def slots(self) -> Sequence[KeySlot]:
        """Who holds its key."""
        ...

    def add_slot(self, key: RootKey, *, label: str) -> str:
        """Wrap the master key for one more holder."""
        ...

    def remove_slot(self, name: str) -> None:
        """Take a holder's access away.

        Raises:
            UsageError: there is no such slot, or it is the last.
        """
        ...

    def status(self) -> RepositoryStatus:
        """Count what it holds."""
        ...

    def backup(self, request: BackupRequest) -> Job[BackupResult]:
        """Begin a backup."""
        ...

    def restore(self, request: RestoreRequest) -> Job[RestoreResult]:
        """Begin a restore; the root's own metadata is set last."""
        ...

    def prune(
        self, *, max_repack_bytes: int | None = None, fence_after_seconds: int | None = None, look_only: bool = False
    ) -> Job[PruneResult]:
        """Begin to free what no snapshot needs; no snapshot is deleted. Of what is None the engine's own holds. `look_only` changes nothing."""
        ...

    def check(self, *, share: tuple[int, int] | None = None) -> Job[CheckResult]:
        """Begin to look whether all is there that snapshots need, and every snapshot that anything speaks of; read one part of the packs, (part, parts)."""
        ...

    def verify(self, snapshot_id: str) -> Job[CheckResult]:
        """Begin to read a snapshot back. What was read is not read again until `end_verification`.

        Raises:
            SnapshotNotFoundError: there is none, from here or from the job.
        """
        ...

    def end_verification(self) -> None:
        """Say that all snapshots of a verification were read: the next one reads everything."""
        ...

    def limit_traffic(
        self, *, upload_bytes_per_second: int | None = None, download_bytes_per_second: int | None = None
    ) -> None:
        """Bound what its jobs together send and fetch; None for no limit."""
        ...

    def set_credentials(self, credentials: Credentials) -> None:
        """Go on with renewed credentials, in running jobs too."""
        ...


class DataPath(Protocol):
    """Repositories at places."""

    def counts(self) -> Counts:
        """What this process has asked of stores and caches since it began."""
        ...

    def exists(self, place: Place) -> bool:
        """Whether a repository lies there; needs no key."""
        ...

    def init(self, place: Place, key: RootKey, *, label: str) -> Repository:
        """Make one.

        Raises:
            AlreadyExistsError: there is one; nothing was touched.
        """
        ...

    def open(self, place: Place, key: RootKey) -> Repository:
        """Open one.

        Raises:
            RepositoryNotFoundError: there is none.
            WrongKeyError: it was made with another key.
        """
        ...
