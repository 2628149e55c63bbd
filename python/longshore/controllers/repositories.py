"""Open repositories for (location, namespace): found, made where there is none, kept open, and handed renewed credentials.

Both server and agent use it; neither waits for the other. The order in which things are done when there is no repository yet decides whether one can be lost:

1. look whether a repository is there; if it is, only keys that exist are tried, and no key is made;
2. read the root secret, or make it and read it back: it is stored in the cluster before anything is encrypted with it;
3. make the repository; if somebody else was quicker, open theirs;
4. add the slot for the recovery key, when there is one.

Promises
- Nothing is written to a ReadOnly location: no repository, no slot, no marker.
- A repository that exists never gets a new key. One that no key opens is WrongKeyError with how to bring the key.
- Handles are shared, so that credentials reach running jobs; a location that was changed gets new handles, running jobs keep theirs. A handle that nobody works
  with any more is let go.
- Whether a key lives in this cluster only is found out by each call, of a handle that is open too; a recovery key that was laid down meanwhile gets its slot
  then.
- Credentials are looked for again well before they end, and every half minute where they have no end: rotated ones are found.

It does not know objects of ours but locations.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from longshore.controllers.cluster import ClusterReader
from longshore.controllers.ports import DataPath, Place, Repository, RootKey
from longshore.controllers.repository_keys import RECOVERY_LABEL, ROOT_LABEL, KeyRing, RepositoryKeys
from longshore.errors import (
    AlreadyExistsError,
    DeniedError,
    LongshoreError,
    RepositoryNotFoundError,
    UsageError,
    WrongKeyError,
)
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.logs import get_logger
from longshore.objectstore.aws import lookup_region
from longshore.objectstore.credentials import Credentials, credentials_for
from longshore.objectstore.location import settings_of
from longshore.objectstore.settings import AwsSettings, StoreSettings, repository_prefix

__all__ = ["OpenRepository", "Repositories"]

_log = get_logger(__name__)

_RENEW_SECONDS: Final = 30.0
_RENEW_BEFORE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class OpenRepository:
    """A repository and what is known of its key."""

    repository: Repository
    url: str
    made: bool
    """Whether it was made by this very call."""
    recovery_missing: bool
    """Whether its key lives in this cluster only, as it was found by this very call."""
    read_only: bool = False
    """Whether nothing may be written there."""


@dataclass(slots=True)
class _Handle:
    place: Place
    repository: Repository
    key: RootKey
    """What opened it."""
    credentials: Credentials | None
    recovery_missing: bool


@dataclass(slots=True)
class _Retired:
    """A handle that is given to nobody any more: known while somebody works with it still."""

    place: Place
    repository: weakref.ref[Repository]
    credentials: Credentials | None


class Repositories:
    """Keeps repositories open; a component for the manager, because it renews credentials."""

    def __init__(
        self,
        datapath: DataPath,
        *,
        cluster: ClusterReader,
        keys: RepositoryKeys,
        forbidden_folders: tuple[Path, ...] = (),
        on_key_at_risk: Callable[[str], None] = lambda _url: None,
        clock: Clock = SYSTEM_CLOCK,
        renew_seconds: float = _RENEW_SECONDS,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            forbidden_folders: the pods root and our own folders, where no filesystem location may lie.
            on_key_at_risk: told of each repository that was made or opened for writing while its key lives in this cluster only.
        """
        self.name = "repositories"
        self._datapath = datapath
        self._cluster = cluster
        self._keys = keys
        self._forbidden_folders = forbidden_folders
        self._on_key_at_risk = on_key_at_risk
        self._clock = clock
        self._renew_seconds = renew_seconds
        self._lock = threading.Lock()
        self._doors: dict[tuple[str, str, bool], threading.Lock] = {}
        self._handles: dict[tuple[str, str, bool], _Handle] = {}
        self._old: list[_Retired] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -- opening ---------------------------------------------------------------------------------------------------------------

    def writable(self, *, location: str, namespace: str) -> Repository:
        """See :class:`longshore.controllers.pod_volume_backup.RepositoryOpener`."""
        return self.open(location=location, namespace=namespace, write=True).repository

    def readable(self, *, location: str, namespace: str) -> Repository:
        """See :class:`longshore.controllers.pod_volume_backup.RepositoryOpener`."""
        return self.open(location=location, namespace=namespace, write=False).repository

    def open(self, *, location: str, namespace: str, write: bool) -> OpenRepository:
        """Give the repository of a namespace at a location.

        Args:
            write: also make it when there is none, and see to its recovery slot.

        Raises:
            DeniedError: the location is ReadOnly and `write` was asked for.
            WrongKeyError: no key that is there opens it.
            RepositoryNotFoundError: there is none, and none may be made.
            LongshoreError: what else stands in the way.
        """
        settings = self._settings(location, namespace)
        if write and settings.read_only:
            raise DeniedError(
                f"the storage location is read-only, nothing is written there: location={location}",
                "set spec.accessMode to ReadWrite, or choose another location",
            )
        name = (location, namespace, write)
        with self._lock:
            door = self._doors.setdefault(name, threading.Lock())
        with door:
            held = self._handles.get(name)
            if held is not None and held.place.settings == settings:
                self._look_at_recovery(held, write=write)
                return self._opened(held, made=False)
            if held is not None:
                _log.info("Location was changed, opening its repository again", location=location, namespace=namespace)
            place = self._place(settings, namespace)
            handle, made = self._make_or_open(place) if write else (self._only_open(place), False)
            with self._lock:
                self._retire(held)
                self._handles[name] = handle
            if write and handle.recovery_missing:
                self._on_key_at_risk(handle.place.url)
            return self._opened(handle, made=made)

    def slot_of(self, *, location: str, namespace: str, key: RootKey) -> str | None:
        """Tell which slot of a repository a key opens; None when it opens none.

        Raises:
            LongshoreError: the repository cannot be looked at.
        """
        try:
            return self._datapath.open(self._place(self._settings(location, namespace), namespace), key).slot
        except WrongKeyError:
            return None

    def forget(self, *, location: str, namespace: str) -> None:
        """Open it anew the next time."""
        with self._lock:
            for write in (False, True):
                self._retire(self._handles.pop((location, namespace, write), None))

    def _retire(self, held: _Handle | None) -> None:
        self._old = [one for one in self._old if one.repository() is not None]
        if held is not None and held.credentials is not None:
            self._old.append(_Retired(held.place, weakref.ref(held.repository), held.credentials))

    def _opened(self, handle: _Handle, *, made: bool) -> OpenRepository:
        place = handle.place
        return OpenRepository(handle.repository, place.url, made, handle.recovery_missing, place.read_only)

    def _settings(self, location: str, namespace: str) -> StoreSettings:
        repository_prefix("", namespace=namespace)
        if not location:
            raise UsageError("the storage location is not named: field=spec.backupStorageLocation", "name one")
        found = self._cluster.location(location)
        return settings_of(found, read_secret=self._cluster.secret_value, forbidden_folders=self._forbidden_folders)

    def _place(self, settings: StoreSettings, namespace: str) -> Place:
        credentials, region = None, None
        if isinstance(settings, AwsSettings):
            found = credentials = credentials_for(settings, read_secret=self._cluster.secret_value)
            region = settings.region or lookup_region(settings, credentials=lambda: found)
        return Place(settings, namespace, settings.read_only, credentials, region)

    def _make_or_open(self, place: Place) -> tuple[_Handle, bool]:
        made = False
        if self._datapath.exists(place):
            ring = self._keys.read()
            repository, key = self._try_keys(place, ring)
        else:
            ring = self._keys.ensure()
            try:
                repository, key = self._datapath.init(place, ring.roots[0], label=ROOT_LABEL), ring.roots[0]
                made = True
                _log.info("Made repository", url=place.url)
            except AlreadyExistsError:
                repository, key = self._try_keys(place, ring)
        missing = self._see_to_recovery(repository, key, ring, write=True)
        return _Handle(place, repository, key, place.credentials, missing), made

    def _only_open(self, place: Place) -> _Handle:
        ring = self._keys.read()
        repository, key = self._try_keys(place, ring)
        missing = self._see_to_recovery(repository, key, ring, write=False)
        return _Handle(place, repository, key, place.credentials, missing)

    def _try_keys(self, place: Place, ring: KeyRing) -> tuple[Repository, RootKey]:
        # A recovery key opens what it was made for, as after the loss of a cluster.
        keys = [*ring.roots, *([ring.recovery] if ring.recovery is not None else [])]
        refused: WrongKeyError | None = None
        for key in keys:
            try:
                return self._datapath.open(place, key), key
            except WrongKeyError as err:
                refused = err
        if not keys and not self._datapath.exists(place):
            raise RepositoryNotFoundError(
                f"there is no repository: url={place.url}",
                "check the location's bucket and prefix, and the source namespace",
            )
        tried = ", ".join(key.origin for key in keys) or "none"
        raise WrongKeyError(
            f"the repository was made with another key: url={place.url}, tried=[{tried}]",
            f"put its secret in {self._keys.where} with longshore repo key import FILE (beside the present one: with --beside)",
        ) from refused

    def _see_to_recovery(self, repository: Repository, key: RootKey, ring: KeyRing, *, write: bool) -> bool:
        """Add the recovery slot where it is due; tell whether the key still lives in this cluster only."""
        if any(slot.label == RECOVERY_LABEL for slot in repository.slots()):
            return False
        if write and ring.recovery is not None:
            repository.add_slot(ring.recovery, label=RECOVERY_LABEL)
            _log.info("Added recovery slot", repository=repository.id, origin=ring.recovery.origin)
            return False
        return not ring.is_exported(key)

    def _look_at_recovery(self, held: _Handle, *, write: bool) -> None:
        try:
            ring = self._keys.read()
            held.recovery_missing = self._see_to_recovery(held.repository, held.key, ring, write=write)
        except LongshoreError as err:
            # The handle works; what was known of its key is known still.
            _log.warning("Recovery key was not looked at", url=held.place.url, error=err, next_step=err.next_step)

    # -- credentials, as a component -------------------------------------------------------------------------------------------

    def start(self, *, failed: Callable[[BaseException], None]) -> None:  # noqa: ARG002 - it goes on whatever happens
        """Begin to renew credentials."""
        self._thread = threading.Thread(target=self._renew, name="credentials", daemon=True)
        self._thread.start()

    def stop(self, *, timeout_seconds: float, clean: bool = True) -> bool:  # noqa: ARG002 - nothing is given back
        """End the thread."""
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def not_ready(self) -> str | None:
        """Never a reason: one bad bucket must not take a node out of service."""
        return None

    def not_live(self) -> str | None:
        """Dead when its thread ended."""
        ended = self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()
        return "thread ended" if ended else None

    def renew_now(self) -> int:
        """Look for new credentials of every open repository; tell how many got some."""
        with self._lock:
            handles: list[_Handle | _Retired] = [*self._handles.values(), *self._old]
        renewed = 0
        for handle in handles:
            try:
                renewed += self._renew_one(handle)
            except LongshoreError as err:
                _log.warning("Credentials were not renewed", url=handle.place.url, error=err, next_step=err.next_step)
        return renewed

    def _renew(self) -> None:
        while not self._clock.wait(self._stop, self._renew_seconds):
            try:
                self.renew_now()
            except Exception:  # noqa: BLE001 - the next round may do better
                _log.exception("Renewal of credentials failed")

    def _renew_one(self, handle: _Handle | _Retired) -> bool:
        held = handle.credentials
        repository = handle.repository() if isinstance(handle, _Retired) else handle.repository
        if held is None or repository is None:
            return False
        if held.expires_at is not None and self._clock.now() < held.expires_at - _RENEW_BEFORE:
            return False
        fresh = held.refresh()
        if replace(fresh, origin=held.origin) == held:
            return False
        repository.set_credentials(fresh)
        handle.credentials = fresh
        _log.info("Renewed credentials", url=handle.place.url, origin=fresh.origin)
        return True
