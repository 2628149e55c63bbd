"""BackupStorageLocation, in the server: is it there, is it ours alone, and since when do we know.

A location is looked at when it changes and every `spec.validationFrequency` (the server's default where it says nothing, never for `0s`): its settings are
checked, its store is reached, and its top must hold only the folders that Velero admits. `status` gets `Available` or `Unavailable`, a message with the next
step, and `lastValidationTime` with every look, as Velero writes it.

Promises: nothing is written at the location. A location that does not answer delays no other: each look has its own worker and the store's time limits. Where
no location is the default and one is called as the server's flag says, it becomes the default; where several are, an Event says so and none is changed,
for only the operator knows which was meant.

It does not know repositories.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from longshore.api.model import JsonObject
from longshore.api.storage_location import BackupStorageLocation, LocationPhase
from longshore.api.values import Timestamp
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.phases import bounded
from longshore.controllers.pod_volume import Lease, Recorder
from longshore.errors import ApiUnavailableError, LongshoreError, NotFoundError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.events import EventType
from longshore.kube.resource import Resource, split_key
from longshore.logs import get_logger
from longshore.metrics import ServerMetrics
from longshore.objectstore.location import settings_of
from longshore.objectstore.opening import open_store
from longshore.objectstore.settings import SecretReader
from longshore.objectstore.store import validate_layout
from longshore.runtime.controller import Requeue

__all__ = ["BackupStorageLocationController"]

_log = get_logger(__name__)

_NO_LEASE_SECONDS: Final = 5.0
_FREQUENCY_SECONDS: Final = 60.0
_FREQUENCY_SECONDS_MIN: Final = 1.0
_NEVER: Final = math.inf


class BackupStorageLocationController:
    """See the module's text."""

    kind: ClassVar[str] = "BackupStorageLocation"
    resource: ClassVar[Resource] = resource_of(BackupStorageLocation.definition)

    def __init__(
        self,
        client: KubeClient,
        *,
        cluster: ClusterReader,
        lease: Lease,
        recorder: Recorder,
        metrics: ServerMetrics,
        namespace: str,
        default_location: str = "default",
        frequency_seconds: float = _FREQUENCY_SECONDS,
        forbidden_folders: tuple[Path, ...] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare.

        Args:
            default_location: which becomes the default where none is.
            frequency_seconds: for locations that do not say how often; 0 for never.
        """
        self._client = client
        self._cluster = cluster
        self._lease = lease
        self._recorder = recorder
        self._metrics = metrics
        self._namespace = namespace
        self._default_location = default_location
        self._frequency_seconds = frequency_seconds
        self._forbidden_folders = forbidden_folders
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}
        """Key of a location → mark of the spec that was looked at, and when. Lost with the process: then all are looked at."""

    def sync(self, key: str) -> Requeue | None:
        """Look at one location if it is due."""
        if not self._lease.is_leader():
            return Requeue(_NO_LEASE_SECONDS)
        namespace, name = split_key(key)
        try:
            obj = self._client.get(self.resource, name, namespace=namespace)
        except NotFoundError:
            self._seen.pop(key, None)
            self._metrics.location(name, available=None)
            return None
        seconds = self._frequency(obj)
        mark, now = _spec_mark(obj), self._clock.monotonic()
        seen = self._seen.get(key)
        if seen is not None and seen[0] == mark and now < seen[1] + seconds:
            return Requeue(seen[1] + seconds - now) if seconds != _NEVER else None
        error = self._problem(obj)
        self._write(obj, error)
        self._seen[key] = (mark, now)
        return Requeue(seconds) if seconds != _NEVER else None

    def see_to_default(self) -> None:
        """Make the location of the flag the default where none is."""
        if not self._lease.is_leader():
            return
        items = self._client.list(self.resource, namespace=self._namespace).items
        defaults = [one for one in items if isinstance(one.get("spec"), dict) and one["spec"].get("default") is True]
        if len(defaults) > 1:
            names = ", ".join(sorted(one["metadata"]["name"] for one in defaults))
            text = f"several storage locations are the default: locations=[{names}]; set spec.default of all but one to false"
            for one in defaults:
                self._recorder.record(one, EventType.WARNING, "SeveralDefaults", text)
            return
        wanted = next((one for one in items if one["metadata"]["name"] == self._default_location), None)
        if not defaults and wanted is not None:
            self._client.patch(
                self.resource,
                self._default_location,
                {"spec": {"default": True}},
                namespace=self._namespace,
                resource_version=wanted["metadata"]["resourceVersion"],
            )
            _log.info("Made location the default", location=self._default_location)

    def _frequency(self, obj: JsonObject) -> float:
        """Tell after how many seconds the location is looked at again; infinity for never."""
        seconds = self._frequency_seconds
        try:
            wanted = BackupStorageLocation.from_dict(obj).spec.validation_frequency
            if wanted is not None:
                seconds = wanted.span.total_seconds()
        except LongshoreError:
            # Nonsense in the location is told by the look itself.
            seconds = self._frequency_seconds
        return max(seconds, _FREQUENCY_SECONDS_MIN) if seconds > 0.0 else _NEVER

    def _problem(self, obj: JsonObject) -> LongshoreError | None:
        """Look at the location; None when all is well."""
        try:
            location = BackupStorageLocation.from_dict(obj)
            reader: SecretReader = self._cluster.secret_value
            settings = settings_of(location, read_secret=reader, forbidden_folders=self._forbidden_folders)
            store = open_store(settings, read_secret=reader)
            try:
                validate_layout(store)
            finally:
                store.close()
        except ApiUnavailableError:
            # The cluster is in trouble, not the location.
            raise
        except LongshoreError as err:
            return err
        return None

    def _write(self, obj: JsonObject, error: LongshoreError | None) -> None:
        name = obj["metadata"]["name"]
        phase = LocationPhase.AVAILABLE if error is None else LocationPhase.UNAVAILABLE
        message = "" if error is None else bounded(error.told())
        status = obj.get("status")
        before = status.get("phase") if isinstance(status, dict) else None
        written = self._client.patch(
            self.resource,
            name,
            {
                "status": {
                    "phase": str(phase),
                    "message": message,
                    "lastValidationTime": Timestamp.of(self._clock.now()),
                },
            },
            namespace=obj["metadata"].get("namespace"),
            resource_version=obj["metadata"]["resourceVersion"],
        )
        self._metrics.location(name, available=error is None)
        if before != phase:
            tell = _log.info if error is None else _log.warning
            tell("Location changed its phase", location=name, phase=str(phase), reason=message)
            event = EventType.NORMAL if error is None else EventType.WARNING
            self._recorder.record(written, event, str(phase), message or f"the location can be used: location={name}")


def _spec_mark(obj: JsonObject) -> str:
    return hashlib.sha256(msgspec.json.encode(obj.get("spec"), order="deterministic")).hexdigest()[:16]
