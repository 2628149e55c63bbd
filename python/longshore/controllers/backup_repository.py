"""BackupRepository and ResticRepository, in the server: one repository for each namespace and location, is it ready, is its key safe.

Both kinds stand for the same thing and are served alike, so that either version of Velero finds the one it knows:

- *Ensure*: for every (namespace, location) that a PodVolumeBackup names there is a BackupRepository; the server alone makes them, and waits for nobody, as
  the agent makes the repository itself by itself.
- *Ready*: the repository could be opened (and was made where there was none, unless the location is ReadOnly). *NotReady*: it could not, and the message says
  why and what to do. Looked at every few minutes, whenever the object's spec changes, and when annotation `longshore.io/look-at` asks for it; a repository
  goes back and forth.
- *Condition RecoveryKeyMissing*: True until its key has a recovery slot or was exported, with an Event.
- *Message*: why it is not ready; of a ready one, that its last maintenance or verification failed.

It does not know when maintenance is due, nor what it does: :mod:`longshore.controllers.maintenance`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final

from longshore.api.meta import ConditionStatus
from longshore.api.model import JsonObject
from longshore.api.names import LABEL_REPOSITORY_TYPE, LABEL_STORAGE_LOCATION, LABEL_VOLUME_NAMESPACE
from longshore.api.repository import (
    CONDITION_RECOVERY_KEY_MISSING,
    BackupRepository,
    RepositoryPhase,
    RepositoryType,
    ResticRepository,
)
from longshore.api.values import Duration, valid_label_value
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.conditions import condition, conditions_of, holds, merged
from longshore.controllers.key_custody import ANNOTATION_LOOK
from longshore.controllers.maintenance.shown import trouble_of
from longshore.controllers.phases import bounded
from longshore.controllers.pod_volume import Lease, Recorder
from longshore.controllers.repositories import Repositories
from longshore.controllers.repository_keys import KEY_AT_RISK, KEY_IS_KEPT
from longshore.errors import AlreadyExistsError, ApiUnavailableError, LongshoreError, NotFoundError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.events import EventType
from longshore.kube.resource import Resource, split_key
from longshore.logs import get_logger
from longshore.metrics import ServerMetrics
from longshore.runtime.controller import Requeue

__all__ = ["BackupRepositoryController", "ensure_repositories"]

_log = get_logger(__name__)

_NO_LEASE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 300.0
_NOT_READY_SECONDS: Final = 60.0
_KEY_KEPT: Final = "RecoveryKeyKept"
_FREQUENCY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look came to."""

    error: LongshoreError | None = None
    recovery_missing: bool | None = None
    """None where it could not be found out."""


class BackupRepositoryController:
    """Serves one of the two kinds; see the module's text."""

    KINDS: ClassVar[tuple[type[BackupRepository | ResticRepository], ...]] = (BackupRepository, ResticRepository)

    def __init__(
        self,
        model: type[BackupRepository | ResticRepository],
        client: KubeClient,
        *,
        cluster: ClusterReader,
        repositories: Repositories,
        lease: Lease,
        recorder: Recorder,
        metrics: ServerMetrics,
        clock: Clock = SYSTEM_CLOCK,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            model: which of the two kinds.
            look_seconds: how often a ready repository is looked at.
        """
        self.kind: Final = model.definition.kind
        self.resource: Final[Resource] = resource_of(model.definition)
        self._model = model
        self._client = client
        self._cluster = cluster
        self._repositories = repositories
        self._lease = lease
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._look_seconds = look_seconds
        self._looked: dict[str, tuple[Any, float, float]] = {}
        self._told: dict[str, bool] = {}

    def sync(self, key: str) -> Requeue | None:
        """Look at one repository if it is due."""
        if not self._lease.is_leader():
            return Requeue(_NO_LEASE_SECONDS)
        namespace, name = split_key(key)
        try:
            obj = self._client.get(self.resource, name, namespace=namespace)
        except NotFoundError:
            self._looked.pop(key, None)
            self._told.pop(name, None)
            self._metrics.repository_gone(self.kind, name)
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return None
        asked = (obj["metadata"].get("annotations") or {}).get(ANNOTATION_LOOK)
        mark, now = (obj.get("spec"), asked), self._clock.monotonic()
        looked = self._looked.get(key)
        if looked is not None and looked[0] == mark and now < looked[1] + looked[2]:
            return Requeue(looked[1] + looked[2] - now)
        found = self._look(obj)
        self._write(obj, found)
        seconds = self._look_seconds if found.error is None else min(_NOT_READY_SECONDS, self._look_seconds)
        self._looked[key] = (mark, now, seconds)
        return Requeue(seconds)

    def _look(self, obj: JsonObject) -> _Found:
        try:
            spec = self._model.from_dict(obj).spec
            location, namespace = spec.backup_storage_location, spec.volume_namespace
            found = self._cluster.location(location)
            # Opened anew at each look: a handle that is open says nothing about the store or the key's slots today.
            self._repositories.forget(location=location, namespace=namespace)
            opened = self._repositories.open(location=location, namespace=namespace, write=not found.spec.is_read_only)
        except ApiUnavailableError:
            raise
        except LongshoreError as err:
            return _Found(err)
        return _Found(None, opened.recovery_missing)

    def _write(self, obj: JsonObject, found: _Found) -> None:
        now = self._clock.now()
        name = obj["metadata"]["name"]
        phase = RepositoryPhase.READY if found.error is None else RepositoryPhase.NOT_READY
        message = trouble_of(obj) if found.error is None else bounded(found.error.told())
        before = obj.get("status") if isinstance(obj.get("status"), dict) else {}
        assert isinstance(before, dict)
        old = conditions_of(obj)
        conditions = merged(old, self._conditions(found), now=now)
        change = {"phase": str(phase), "message": message, "conditions": conditions}
        ready, risk = found.error is None, found.recovery_missing
        self._metrics.repository(self.kind, name, ready=ready, key_at_risk=risk)
        if all(before.get(field) == value for field, value in change.items()):
            return
        written = self._client.patch(
            self.resource,
            name,
            {"status": change},
            namespace=obj["metadata"].get("namespace"),
            resource_version=obj["metadata"]["resourceVersion"],
        )
        if before.get("phase") != phase:
            tell = _log.info if ready else _log.warning
            tell("Repository changed its phase", kind=self.kind, name=name, phase=str(phase), reason=message)
            event = EventType.NORMAL if ready else EventType.WARNING
            self._recorder.record(written, event, str(phase), "the repository can be used" if ready else message)
        # Velero's own definitions prune the conditions: there our memory alone knows what was told.
        told = holds(old, CONDITION_RECOVERY_KEY_MISSING) or self._told.get(name, False)
        self._told[name] = bool(risk)
        if risk and not told:
            self._recorder.record(written, EventType.WARNING, CONDITION_RECOVERY_KEY_MISSING, KEY_AT_RISK)
        elif risk is False and told:
            self._recorder.record(written, EventType.NORMAL, _KEY_KEPT, KEY_IS_KEPT)

    def _conditions(self, found: _Found) -> list[JsonObject]:
        if found.recovery_missing is None:
            return []
        missing = found.recovery_missing
        return [
            condition(
                CONDITION_RECOVERY_KEY_MISSING,
                ConditionStatus.TRUE if missing else ConditionStatus.FALSE,
                reason="KeyInThisClusterOnly" if missing else "KeyIsKeptElsewhere",
                message=KEY_AT_RISK if missing else KEY_IS_KEPT,
            )
        ]


def ensure_repositories(
    client: KubeClient,
    *,
    namespace: str,
    pod_volume_backups: Iterable[JsonObject],
    known: Iterable[JsonObject],
    frequency: timedelta = _FREQUENCY,
) -> list[str]:
    """Make a BackupRepository for every namespace and location that PodVolumeBackups name and that has none.

    Args:
        namespace: Velero's.
        pod_volume_backups: all of them.
        known: all BackupRepositories.
        frequency: how often maintenance of those that are made is to run.

    Returns:
        The names of those that were made.
    """
    served = {
        (spec.get("volumeNamespace"), spec.get("backupStorageLocation"))
        for one in known
        if isinstance(spec := one.get("spec"), dict)
    }
    made = []
    for volume_namespace, location, type_ in sorted(_wanted(pod_volume_backups)):
        if (volume_namespace, location) in served:
            continue
        served.add((volume_namespace, location))
        name = f"{volume_namespace}-{location}-{type_}"
        body = {
            "metadata": {
                "name": name,
                "labels": {
                    LABEL_VOLUME_NAMESPACE: valid_label_value(volume_namespace),
                    LABEL_STORAGE_LOCATION: valid_label_value(location),
                    LABEL_REPOSITORY_TYPE: type_,
                },
            },
            "spec": {
                "volumeNamespace": volume_namespace,
                "backupStorageLocation": location,
                "repositoryType": type_,
                "resticIdentifier": "",
                "maintenanceFrequency": Duration.of(frequency),
            },
        }
        try:
            client.create(resource_of(BackupRepository.definition), body, namespace=namespace)
        except AlreadyExistsError:
            continue
        except LongshoreError as err:
            if err.retryable:
                raise
            # A name that the API server refuses: nonsense in one object must not keep others from theirs.
            _log.warning("BackupRepository was not made", name=name, error=err, next_step=err.next_step)
            continue
        _log.info("Made BackupRepository", name=name)
        made.append(name)
    return made


def _wanted(objects: Iterable[JsonObject]) -> set[tuple[str, str, str]]:
    found = set()
    for obj in objects:
        spec = obj.get("spec")
        pod = spec.get("pod") if isinstance(spec, dict) else None
        if not isinstance(spec, dict) or not isinstance(pod, dict):
            continue
        namespace, location, type_ = pod.get("namespace"), spec.get("backupStorageLocation"), spec.get("uploaderType")
        if isinstance(namespace, str) and isinstance(location, str) and namespace and location:
            found.add(
                (
                    namespace,
                    location,
                    str(type_) if type_ in set(RepositoryType) and type_ else str(RepositoryType.KOPIA),
                )
            )
    return found
