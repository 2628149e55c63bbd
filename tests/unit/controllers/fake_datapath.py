"""A data path in memory that keeps the contract of `longshore.controllers.ports`: real files in and out, snapshots with tags, keys, refusals.

A snapshot holds regular files, directories and symbolic links of the root with their modes. Jobs end by themselves on a thread, or, when the test holds
`gate`, not before it lets go. `down` stands for a store that is away.
"""

import os
import secrets
import stat
import threading
import time
from dataclasses import dataclass, field

from longshore.controllers.ports import BackupRequest, Place, RestoreRequest, RootKey
from longshore.datapath import CheckResult, Counts, Finding, PruneResult, RepositoryStatus
from longshore.errors import (
    AlreadyExistsError,
    CancelledError,
    CorruptError,
    DeniedError,
    RepositoryNotFoundError,
    SnapshotNotFoundError,
    StoreUnavailableError,
    UsageError,
    WrongKeyError,
)


@dataclass
class FakeProgress:
    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0


@dataclass(frozen=True)
class Lost:
    path: bytes
    message: str


@dataclass(frozen=True)
class Done:
    """Result of a backup or a restore."""

    snapshot_id: str | None = None
    parent_id: str | None = None
    files_total: int = 0
    bytes_total: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    bytes_written: int = 0
    files_resumed: int = 0
    bytes_resumed: int = 0
    seconds: float = 0.5
    items_lost: int = 0
    items_changed: int = 0
    items_dropped: int = 0
    dropped: tuple = ()
    lost: tuple = ()
    changed: tuple = ()
    exit_code: int = 0


@dataclass
class FakeSnapshot:
    id: str
    source: str
    tags: dict
    parent: str | None
    entries: dict = field(repr=False)
    root_mode: int = 0o755
    files_total: int = 0
    bytes_total: int = 0
    items_lost: int = 0
    started_nanos: int = field(default_factory=time.time_ns)


class FakeJob:
    def __init__(self, run, world):
        self._world = world
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self._progress = FakeProgress()
        self._result = self._error = None

        def body():
            try:
                self._result = run(self)
            except BaseException as err:
                self._error = err
            finally:
                world.running -= 1
                self._over.set()

        world.running += 1
        world.peak = max(world.peak, world.running)
        threading.Thread(target=body, daemon=True).start()

    def pause(self):
        """Wait at the gate, if the test holds it."""
        while not self._world.gate.wait(0.01):
            self.check()
        self.check()

    def check(self):
        if self._cancelled.is_set():
            raise CancelledError("the job was cancelled")

    def progress(self):
        return self._progress

    def cancel(self):
        self._cancelled.set()

    def wait(self, timeout_seconds):
        return self._over.wait(timeout_seconds)

    def result(self):
        assert self._over.is_set()
        if self._error is not None:
            raise self._error
        return self._result


def slow_to_stop(monkeypatch):
    """Make jobs take their time to stop. Gives two events: one is asked to stop; set by the test, it does."""
    asked, let_go = threading.Event(), threading.Event()
    stop = FakeJob.cancel

    def slowly(job):
        if not asked.is_set():
            threading.Thread(target=lambda: (let_go.wait(20), stop(job)), daemon=True).start()
        asked.set()

    monkeypatch.setattr(FakeJob, "cancel", slowly)
    return asked, let_go


class FakeWorld:
    """What outlives agents: the stores of all places."""

    def __init__(self):
        self.repositories = {}
        self.down = False
        self.refused = None
        self.gate = threading.Event()
        self.gate.set()
        self.calls = []
        # What runs that were interrupted had read, by source: the cache folder of the node.
        self.journals = {}
        self.running = 0
        self.peak = 0
        self.lost = ()
        self.fail_restore = None
        self.damaged = set()
        # A snapshot that tables speak of and no listing shows, and what a prune finds there.
        self.missing = ""
        self.held = {}
        self.lock = threading.Lock()

    def check(self):
        if self.down:
            raise StoreUnavailableError("the store does not answer", "check the network")
        if self.refused is not None:
            raise self.refused


@dataclass
class Stored:
    id: str
    slots: dict
    snapshots: list = field(default_factory=list)


class FakeRepository:
    def __init__(self, world, place, stored, slot):
        self._world, self._place, self._stored = world, place, stored
        self.id, self.slot = stored.id, slot
        self.credentials = place.credentials

    def snapshots(self):
        self._world.check()
        return list(self._stored.snapshots)

    def slots(self):
        self._world.check()
        return [Slot(name, str(key[0]), label) for name, (key, label) in self._stored.slots.items()]

    def add_slot(self, key, *, label):
        self._may_write()
        name = secrets.token_hex(4)
        self._stored.slots[name] = ((key.kind, key.value), label)
        return name

    def remove_slot(self, name):
        self._may_write()
        if name not in self._stored.slots or len(self._stored.slots) == 1:
            raise UsageError(f"there is no such key slot, or it is the last: slot={name}")
        del self._stored.slots[name]

    def status(self):
        self._world.check()
        counts = dict.fromkeys(RepositoryStatus.__dataclass_fields__, 0)
        return RepositoryStatus(
            **{**counts, "id": self.id, "snapshots": len(self._stored.snapshots), "slots": len(self._stored.slots)}
        )

    def prune(self, *, max_repack_bytes=None, fence_after_seconds=None, look_only=False):
        self._may_write()
        self._world.calls.append(("prune options", (max_repack_bytes, fence_after_seconds)))
        self._world.calls.append(("look" if look_only else "prune", self._place.url))
        return FakeJob(self._prune, self._world)

    def check(self, *, share=None):
        self._world.calls.append(("check", share))
        return FakeJob(lambda job: self._check(job, share), self._world)

    def verify(self, snapshot_id):
        self._world.calls.append(("verify", snapshot_id))
        return FakeJob(lambda job: self._verify(job, snapshot_id), self._world)

    def end_verification(self):
        self._world.calls.append(("end_verification", self._place.url))

    def limit_traffic(self, *, upload_bytes_per_second=None, download_bytes_per_second=None):
        self._world.calls.append(("limits", (upload_bytes_per_second, download_bytes_per_second)))

    def _prune(self, job):
        job.pause()
        self._world.check()
        if self._world.missing:
            raise CorruptError(
                f"a snapshot is not listed that a usage table names: snapshot={self._world.missing}",
                "bring the object back, or give the snapshot up with longshore volume delete",
            )
        zeros = dict.fromkeys(PruneResult.__dataclass_fields__, 0)
        lists = {name: [] for name in ("waiting_for", "fenced", "kept", "packs", "damaged")}
        done = {"bytes_freed": 7, "packs_deleted": 1, "snapshots": len(self._stored.snapshots), "seconds": 0.5}
        return PruneResult(**{**zeros, **lists, "used_reserve": False, **self._world.held, **done})

    def _check(self, job, share):
        job.pause()
        self._world.check()
        missing, held = self._world.missing, [one.id for one in self._stored.snapshots]
        found = []
        if missing:
            found.append(Finding("error", f"snapshots/{missing}", "is named by a usage table and not there", [missing]))
        # The first part holds what the oldest snapshot alone needs.
        found += [
            Finding("error", "packs/0", "is damaged", [one])
            for one in held
            if one in self._world.damaged and share[0] == 0
        ]
        zeros = dict.fromkeys(CheckResult.__dataclass_fields__, 0)
        done = {"findings": found, "hurt": [], "errors": len(found), "exit_code": 4 if found else 0}
        return CheckResult(**{**zeros, **done, "snapshots": len(held), "bytes_read": 3 if share else 0})

    def _verify(self, job, snapshot_id):
        job.pause()
        self._world.check()
        if snapshot_id not in {one.id for one in self._stored.snapshots}:
            raise SnapshotNotFoundError(f"there is no such snapshot: snapshot={snapshot_id}")
        damaged = snapshot_id in self._world.damaged
        zeros = dict.fromkeys(CheckResult.__dataclass_fields__, 0)
        return CheckResult(
            **{**zeros, "findings": [], "hurt": [], "errors": int(damaged), "bytes_read": 5, "exit_code": 4 * damaged}
        )

    def set_credentials(self, credentials):
        self.credentials = credentials

    def backup(self, request: BackupRequest):
        self._may_write()
        self._world.calls.append(("backup", request))
        return FakeJob(lambda job: self._backup(job, request), self._world)

    def restore(self, request: RestoreRequest):
        self._world.calls.append(("restore", request))
        return FakeJob(lambda job: self._restore(job, request), self._world)

    def _may_write(self):
        if self._place.read_only:
            raise DeniedError("the data path was asked to write where it may not")

    def _backup(self, job, request):
        entries = {}
        for folder, names, files in os.walk(os.fsencode(request.path)):
            below = os.path.relpath(folder, os.fsencode(request.path))
            if below == b".":
                below = b""
                names[:] = [name for name in names if name not in request.exclude_root_names]
                files = [name for name in files if name not in request.exclude_root_names]  # noqa: PLW2901 - as os.walk wants it
            for name in names + files:
                path, place = os.path.join(folder, name), os.path.join(below, name)
                status = os.lstat(path)
                content = None
                if stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as file:
                        content = file.read()
                    job._progress.bytes_done += len(content)
                elif stat.S_ISLNK(status.st_mode):
                    content = os.readlink(path)
                entries[place] = (status.st_mode, content)
                job._progress.files_done += 1
        before = self._world.journals.get(request.source, {})
        resumed = [
            content
            for place, (mode, content) in entries.items()
            if stat.S_ISREG(mode) and before.get(place) == (mode, content)
        ]
        self._world.journals[request.source] = entries
        job.pause()
        self._world.check()
        del self._world.journals[request.source]
        earlier = [one for one in self._stored.snapshots if one.source == request.source]
        parent = None if request.parent == "none" or not earlier else earlier[-1].id
        size = sum(len(content) for mode, content in entries.values() if stat.S_ISREG(mode))
        lost = self._world.lost
        snapshot = FakeSnapshot(
            id=f"ls0-{secrets.token_hex(16)}",
            source=request.source,
            tags=dict(request.tags),
            parent=parent,
            entries=entries,
            root_mode=stat.S_IMODE(os.stat(request.path).st_mode),
            files_total=len(entries),
            bytes_total=size,
            items_lost=len(lost),
        )
        with self._world.lock:
            self._stored.snapshots.append(snapshot)
        return Done(
            snapshot_id=snapshot.id,
            parent_id=parent,
            files_total=len(entries),
            bytes_total=size,
            bytes_read=size - sum(map(len, resumed)),
            bytes_stored=size,
            files_resumed=len(resumed),
            bytes_resumed=sum(map(len, resumed)),
            items_lost=len(lost),
            lost=lost,
            exit_code=3 if lost else 0,
        )

    def _restore(self, job, request):
        found = [one for one in self._stored.snapshots if one.id == request.snapshot_id]
        if not found:
            raise SnapshotNotFoundError(f"there is no such snapshot: snapshot={request.snapshot_id}")
        job.pause()
        self._world.check()
        if self._world.fail_restore is not None:
            raise self._world.fail_restore
        target = os.fsencode(request.target)
        for place, (mode, content) in sorted(found[0].entries.items()):
            path = os.path.join(target, place)
            if os.path.lexists(path) and not stat.S_ISDIR(mode):
                os.unlink(path)
            if stat.S_ISDIR(mode):
                os.makedirs(path, exist_ok=True)
            elif stat.S_ISLNK(mode):
                os.symlink(content, path)
            else:
                with open(path, "wb") as file:
                    file.write(content)
                os.chmod(path, stat.S_IMODE(mode))
            job._progress.files_done += 1
        os.chmod(target, found[0].root_mode)
        lost = self._world.lost
        return Done(
            files_total=found[0].files_total,
            bytes_total=found[0].bytes_total,
            items_lost=len(lost),
            lost=lost,
            exit_code=3 if lost else 0,
        )


@dataclass(frozen=True)
class Slot:
    name: str
    kind: str
    label: str


class FakeDataPath:
    """One process's view of a world."""

    def __init__(self, world):
        self.world = world

    def counts(self):
        return Counts(store_requests={}, store_errors={}, cache_lookups={})

    def exists(self, place: Place):
        self.world.check()
        return place.url in self.world.repositories

    def init(self, place: Place, key: RootKey, *, label):
        self.world.check()
        if place.read_only:
            raise DeniedError("the data path was asked to write where it may not")
        with self.world.lock:
            if place.url in self.world.repositories:
                raise AlreadyExistsError(f"there is a repository already: url={place.url}")
            stored = Stored(secrets.token_hex(8), {"0": ((key.kind, key.value), label)})
            self.world.repositories[place.url] = stored
        self.world.calls.append(("init", place.url))
        return FakeRepository(self.world, place, stored, "0")

    def open(self, place: Place, key: RootKey):
        self.world.check()
        stored = self.world.repositories.get(place.url)
        if stored is None:
            raise RepositoryNotFoundError(f"there is no repository: url={place.url}")
        opened = [name for name, (held, _label) in stored.slots.items() if held == (key.kind, key.value)]
        if not opened:
            raise WrongKeyError(f"the key opens no slot: url={place.url}")
        self.world.calls.append(("open", place.url))
        return FakeRepository(self.world, place, stored, opened[0])


def wait_for(condition, *, seconds=20.0, what="the condition"):
    """Wait until something holds; what it gives is given back."""
    ends = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < ends, f"{what} did not come true in {seconds} s"
        time.sleep(0.01)
