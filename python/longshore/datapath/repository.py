"""A repository: made, opened, its snapshots and keys, and the jobs on it.

One :class:`Repository` serves many threads and many jobs at once. Calls that look something up give up after half a minute of a store that does not answer;
jobs ride out a quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from longshore import _native
from longshore.datapath import machine
from longshore.datapath.enginelog import forward
from longshore.datapath.jobs import Job
from longshore.datapath.keys import Key, native_key
from longshore.datapath.limits import Limits, native_limits
from longshore.datapath.options import BackupOptions, Hints, PruneOptions, RepairOptions, RestoreOptions
from longshore.datapath.results import (
    BackupResult,
    CheckResult,
    Entry,
    EntryPage,
    KeySlot,
    PruneResult,
    RepairResult,
    RepositoryStatus,
    RestoreResult,
    Snapshot,
    SnapshotList,
    adopt,
)
from longshore.datapath.stores import Credentials, FolderStore, StoreSettings, native_store
from longshore.errors import UsageError

__all__ = ["Repository", "exists", "init", "open"]

T = TypeVar("T")
_BUCKET_READERS: Final = 4
_PARTS_MAX: Final = 10_000
"""With 20 ms to the first byte on two processors: two readers 84 MB/s, four 122. Eight are no faster and fetch a third of all bytes twice, because the engine's
cache of regions holds nine."""
_BUCKET_READER_BYTES: Final = 32 << 20
"""Below it readers would push one another's regions of packs out of memory and fetch them again."""
_LISTINGS_MAX: Final = 4
"""Each keeps a marker in the store and a reader's cache."""


def _told(call: Callable[[], T]) -> T:
    """Make a call, then write what the engine logged in it."""
    try:
        return call()
    finally:
        forward()


def exists(store: StoreSettings) -> bool:
    """Tell whether there is a repository, without a key.

    Raises:
        CorruptError, NewerFormatError: there is one, and this version cannot read what it is.
        StoreDeniedError, StoreUnavailableError: the store did not say.
    """
    native = native_store(store)
    return _told(lambda: _native.exists(native))


def init(
    store: StoreSettings,
    key: Key,
    *,
    cache_dir: str | Path | None = None,
    cache_limit_bytes: int | None = None,
    limits: Limits | None = None,
    label: str = "",
) -> Repository:
    """Make a repository whose first key slot opens with `key`.

    Args:
        store: where; a folder that is absent is made, with its parents.
        key: what will open it.
        cache_dir: where copies of its metadata may be kept on this machine; None for none.
        cache_limit_bytes: what all repositories there may take together, and never more than a tenth of the filesystem; None for 5 GiB.
        limits: what its jobs share with those of other repositories; None for limits of its own.
        label: says in the slot whose key it is.

    Raises:
        RepositoryExistsError: anything of one is there; nothing is touched.
        UnsupportedError: the store cannot create an object only if it is absent.
    """
    native = native_store(store)
    return Repository(
        _told(
            lambda: _native.init(
                native,
                native_key(key),
                cache_dir=cache_dir,
                cache_limit_bytes=cache_limit_bytes,
                limits=native_limits(limits),
                label=label,
            )
        ),
        store,
    )


def open(  # noqa: A001 - the word for it
    store: StoreSettings,
    key: Key,
    *,
    cache_dir: str | Path | None = None,
    cache_limit_bytes: int | None = None,
    limits: Limits | None = None,
) -> Repository:
    """Open a repository; what is given means what `init` says.

    Raises:
        RepositoryNotFoundError, WrongKeyError, NewerFormatError, CorruptError: it does not open.
        StoreDeniedError, StoreUnavailableError: the store does not let us see.
    """
    native = native_store(store)
    return Repository(
        _told(
            lambda: _native.open(
                native,
                native_key(key),
                cache_dir=cache_dir,
                cache_limit_bytes=cache_limit_bytes,
                limits=native_limits(limits),
            )
        ),
        store,
    )


class Repository:
    """An open repository."""

    __slots__ = ("__weakref__", "_listings", "_native", "store")

    def __init__(self, native: _native.Repository, store: StoreSettings) -> None:
        self._native = native
        self.store = store
        # Walks that somebody may go on with, by what was asked and the last path given out; taken while in use.
        self._listings: dict[tuple[str, bytes, bool, bytes], _native.Listing] = {}

    @property
    def id(self) -> str:
        """Its id, the same for its whole life."""
        return self._native.id

    @property
    def slot(self) -> str:
        """The name of the key slot that its key opened."""
        return self._native.slot

    def __repr__(self) -> str:
        return f"Repository(id={self.id}, store={self.store.url})"

    # --- snapshots ---

    def snapshots(self) -> SnapshotList:
        """List all snapshots that count, oldest first; damaged ones are told beside them."""
        rows, damaged = _told(self._native.snapshots)
        return SnapshotList(rows=[adopt(Snapshot, row) for row in rows], damaged=damaged)

    def find(self, wanted: str, *, source: str | None = None) -> Snapshot:
        """Find one snapshot.

        Args:
            wanted: its id, a unique prefix of it, or `latest`.
            source: `latest` among this volume's; needed when the repository holds several.

        Raises:
            SnapshotNotFoundError: there is none.
            UsageError: several fit; the message names them.
        """
        return adopt(Snapshot, _told(lambda: self._native.find(wanted, source=source)))

    def remove(self, snapshot_id: str, *, by: str) -> None:
        """Delete a snapshot; its data is freed by a later prune.

        Args:
            snapshot_id: its id or a unique prefix of it, not `latest`.
            by: who asked, for people.

        Raises:
            SnapshotNotFoundError: there is none.
        """
        if snapshot_id == "latest":
            raise UsageError("a snapshot is deleted by its id, not by a moving name: snapshot=latest", "name the id")
        _told(lambda: self._native.remove(snapshot_id, by=by))

    def entries(
        self,
        snapshot_id: str,
        path: bytes = b"",
        *,
        recursive: bool = False,
        after: bytes | None = None,
        limit: int = 1000,
    ) -> EntryPage:
        """List what is in a snapshot, page by page.

        Going on with the `after` of the page before costs only the new page; any other `after` costs the walk up to it.

        Args:
            snapshot_id: its id or a unique prefix of it.
            path: a directory in it, or anything else for its one entry; empty for the root.
            recursive: also what lies below subdirectories.
            after: `after` of the page before.
            limit: most rows of a page.

        Raises:
            SnapshotNotFoundError: no such snapshot or path.
            UsageError: `after` is no path of this listing.
        """
        if limit < 1:
            raise UsageError(f"a page holds at least one entry: limit={limit}", "raise the limit")
        listing = None if after is None else self._listings.pop((snapshot_id, path, recursive, after), None)
        if listing is None:
            listing = _told(lambda: self._native.listing(snapshot_id, path, recursive=recursive, after=after, host=""))
        rows, damaged = _told(lambda: listing.page(limit))
        last = rows[-1].path if len(rows) == limit else None
        if last is not None:
            while len(self._listings) >= _LISTINGS_MAX:
                self._listings.pop(next(iter(self._listings)), None)
            self._listings[snapshot_id, path, recursive, last] = listing
        return EntryPage(rows=[adopt(Entry, row) for row in rows], after=last, damaged=damaged)

    # --- keys ---

    def slots(self) -> list[KeySlot]:
        """List who can open it."""
        return [adopt(KeySlot, row) for row in _told(self._native.slots)]

    def add_slot(self, key: Key, *, label: str) -> str:
        """Let one more key open it; gives the slot's name."""
        return _told(lambda: self._native.add_slot(native_key(key), label=label))

    def remove_slot(self, name: str) -> None:
        """Take a key away.

        Raises:
            UsageError: there is no such slot, or it is the last.
        """
        _told(lambda: self._native.remove_slot(name))

    # --- the whole ---

    def status(self) -> RepositoryStatus:
        """Count what it holds; reads the whole index."""
        return adopt(RepositoryStatus, _told(self._native.status))

    def set_credentials(self, credentials: Credentials) -> None:
        """Go on with renewed credentials; running jobs use them from their next request on.

        Raises:
            UsageError: the repository lies in a folder.
        """
        self._native.set_credentials(credentials.access_key, credentials.secret_key, credentials.session_token)

    def limit_traffic(
        self, *, upload_bytes_per_second: int | None = None, download_bytes_per_second: int | None = None
    ) -> None:
        """Bound what all jobs together send and fetch, from now on, running ones included; None for no limit.

        Those of other repositories with the same :class:`longshore.datapath.Limits` are bounded with them.
        """
        self._native.limit_traffic(
            upload_bytes_per_second=upload_bytes_per_second or 0,
            download_bytes_per_second=download_bytes_per_second or 0,
        )

    # --- jobs ---

    def backup(self, options: BackupOptions) -> Job[BackupResult]:
        """Start to back a volume up.

        Returns:
            The job, which runs already.

        Raises:
            UsageError: an option makes no sense.
        """
        native = self._native.backup(
            path=options.path,
            source=options.source,
            host=options.host,
            tags=sorted(options.tags.items()),
            parent=options.parent,
            excludes=list(options.excludes),
            exclude_root_names=list(options.exclude_root_names),
            one_file_system=options.one_file_system,
            dry_run=options.dry_run,
            strict=options.strict,
            workers=_positive("workers", options.workers, machine.workers),
            memory_limit_bytes=_positive("memory_limit_bytes", options.memory_limit_bytes, machine.memory_limit_bytes),
            compression=str(options.compression),
            verify_upload=options.verify_upload,
            paranoid=options.paranoid,
            hints=_hints(options.hints),
        )
        return Job(native, lambda result: adopt(BackupResult, result))

    def restore(self, options: RestoreOptions) -> Job[RestoreResult]:
        """Start to lay a snapshot, or a part of it, into a directory.

        Returns:
            The job, which runs already.

        Raises:
            UsageError: an option makes no sense.
        """
        memory = _positive("memory_limit_bytes", options.memory_limit_bytes, machine.memory_limit_bytes)
        native = self._native.restore(
            snapshot_id=options.snapshot_id,
            path=options.path,
            target=options.target,
            delete_extra=options.delete_extra,
            allow_setuid=options.allow_setuid,
            allow_devices=options.allow_devices,
            allow_capabilities=options.allow_capabilities,
            allow_trusted_xattrs=options.allow_trusted_xattrs,
            allow_selinux=options.allow_selinux,
            restore_owner=options.restore_owner,
            restore_root_metadata=options.restore_root_metadata,
            dry_run=options.dry_run,
            strict=options.strict,
            keep_damaged=options.keep_damaged,
            trust_times=options.trust_times,
            workers=_positive("workers", options.workers, lambda: self._readers(memory)),
            memory_limit_bytes=memory,
            host=options.host,
        )
        return Job(native, lambda result: adopt(RestoreResult, result))

    def check(
        self,
        *,
        read_data: bool = False,
        read_percent: int | None = None,
        share: tuple[int, int] | None = None,
        fresh: bool = False,
    ) -> Job[CheckResult]:
        """Start to look whether everything is there that snapshots need.

        Args:
            read_data: read every pack and recompute the id of every chunk, too.
            read_percent: read so many of a hundred packs, chosen at random.
            share: (part, parts): read the packs of one part out of so many, which are the same each time; all parts together are all packs.
            fresh: read what an interrupted check of the same has read, too; else it goes on from there, where the cache outlived it.
        """
        _no_share_or(share)
        percent = read_percent if read_percent is not None else 100 if read_data else 0
        if not 0 <= percent <= 100:
            raise UsageError(f"the share of packs to read is a percentage: read_percent={percent}", "give 0 to 100")
        memory = machine.memory_limit_bytes()
        native = self._native.check(
            read_percent=percent,
            share=share,
            fresh=fresh,
            workers=self._readers(memory),
            memory_limit_bytes=memory,
            host="",
        )
        return Job(native, lambda result: adopt(CheckResult, result))

    def verify(
        self,
        snapshot_id: str,
        *,
        tags_only: bool = False,
        share: tuple[int, int] | None = None,
        fresh: bool = False,
        keep_journal: bool = False,
    ) -> Job[CheckResult]:
        """Start to read everything that one snapshot needs, and name the files that damage hurts.

        Args:
            snapshot_id: its id or a unique prefix of it.
            tags_only: check the seals only; without it the id of every chunk is recomputed, too.
            share: (part, parts): read the packs of one part alone, as `check` has it; of the others, that they are there.
            fresh: as `check` has it.
            keep_journal: it is one of several: what it read is not read again until `forget_journals`, or for seven days.
        """
        _no_share_or(share)
        memory = machine.memory_limit_bytes()
        native = self._native.verify(
            snapshot_id,
            tags_only=tags_only,
            share=share,
            fresh=fresh,
            keep_journal=keep_journal,
            workers=self._readers(memory),
            memory_limit_bytes=memory,
            host="",
        )
        return Job(native, lambda result: adopt(CheckResult, result))

    def forget_journals(self) -> None:
        """Forget what checks, verifies and repairs have read that were interrupted, or kept their journals."""
        _told(self._native.forget_journals)

    def prune(self, options: PruneOptions) -> Job[PruneResult]:
        """Start to free what no snapshot and no reader needs, beside everything else that runs.

        Returns:
            The job, which runs already.

        Raises:
            UsageError: an option makes no sense.
        """
        if not 0 <= options.waste_percent <= 100:
            raise UsageError(
                f"the share of waste is a percentage: waste_percent={options.waste_percent}", "give 0 to 100"
            )
        native = self._native.prune(
            dry_run=options.dry_run,
            forget=list(options.forget),
            allow_empty=options.allow_empty,
            waste_percent=options.waste_percent,
            max_repack_bytes=options.max_repack_bytes,
            fence_after_seconds=options.fence_after_seconds,
            fence_now=options.fence_now,
            fence=list(options.fence),
        )
        return Job(native, lambda result: adopt(PruneResult, result))

    def repair(self, options: RepairOptions) -> Job[RepairResult]:
        """Start to put right what is damaged, as far as that can be done, and to write down what cannot.

        Returns:
            The job, which runs already.
        """
        memory = machine.memory_limit_bytes()
        native = self._native.repair(
            dry_run=options.dry_run,
            read_data=options.read_data,
            fresh=options.fresh,
            workers=self._readers(memory),
            memory_limit_bytes=memory,
            host=options.host,
        )
        return Job(native, lambda result: adopt(RepairResult, result))

    def _readers(self, memory_limit_bytes: int) -> int:
        """Give how many threads read: as many as may compute; more for a bucket, where each mostly waits, if memory allows."""
        if isinstance(self.store, FolderStore):
            return machine.workers()
        return max(machine.workers(), min(_BUCKET_READERS, memory_limit_bytes // _BUCKET_READER_BYTES))


def _no_share_or(share: tuple[int, int] | None) -> None:
    """Refuse a share that is none."""
    if share is not None and not 0 <= share[0] < share[1] <= _PARTS_MAX:
        raise UsageError(f"there is no such part: part={share[0]}, parts={share[1]}", "count parts from 0")


def _positive(name: str, value: int | None, default: Callable[[], int]) -> int:
    if value is None:
        return default()
    if value < 1:
        raise UsageError(
            f"a limit must be at least 1: option={name}, value={value}", "leave it out for what this machine allows"
        )
    return value


def _hints(
    hints: Hints | None,
) -> tuple[str, int, int, list[tuple[bytes, int, int, int, list[tuple[int, int]]]]] | None:
    if hints is None:
        return None
    files = [(f.path, f.size_bytes, f.mtime_ns, f.ctime_ns, list(f.ranges)) for f in hints.files]
    return hints.since, hints.taken_ns, hints.ignored, files
