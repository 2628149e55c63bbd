"""PodVolumeBackup: one volume of a pod on this node becomes one snapshot.

What the table of :mod:`longshore.controllers.pod_volume` does not say:

- *Ours* is what names our node in `spec.node`.
- *Before the work* pod, PVC and PV are read, the volume is looked up, and what Velero leaves out is left out: hostPath and block volumes fail, volumes that
  Kubernetes fills by itself are Completed without a snapshot.
- *The work*: open or make the repository, look whether an earlier attempt at this very object had reached its commit (its tags hold the object's UID), else
  run the backup. So an agent that was killed after the commit and before the status makes no second snapshot.
- *The end*: exit 0 Completed; exit 3 (items could not be read) Failed with `snapshotID`, for the rest is kept; files that changed meanwhile are named. A volume
  that goes with its pod is emptied by the kubelet once the pod has ended, and to the data path that looks like files that a program deletes; so when the pod
  has ended by the time that the work is done the backup is Failed with `snapshotID`, for nobody can tell what the snapshot lacks.

`.velero` in the volume's root is the restore-wait protocol's and never part of a snapshot.

It does not know keys, credentials or stores.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from longshore.api.model import JsonObject
from longshore.api.pod_volume import PodVolumeBackup, PodVolumePhase
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.items import describe_changed, describe_lost, describe_resumed, log_items
from longshore.controllers.phases import Ending, done_progress
from longshore.controllers.pod_volume import AgentContext, PodVolumeController
from longshore.controllers.ports import BackupRequest, BackupResult, Repository, Snapshot
from longshore.controllers.snapshot_ids import is_ours
from longshore.controllers.tasks import Task
from longshore.errors import CorruptError, DeniedError, NotFoundError, UsageError, VolumeNotFoundError
from longshore.kube.resource import Resource
from longshore.logs import get_logger
from longshore.runtime.controller import Requeue
from longshore.volumes import (
    VolumePath,
    check_supported,
    claim_name_of,
    filled_by_kubernetes,
    folder_of,
    identity_of,
    locate,
    volume_of,
)

__all__ = [
    "ANNOTATION_STRICT",
    "TAG_OBJECT",
    "TAG_OBJECT_UID",
    "WAIT_FOLDER",
    "PodVolumeBackupController",
    "RepositoryOpener",
    "find_volume",
    "forgetting",
    "workers_of",
]

_log = get_logger(__name__)

ANNOTATION_STRICT: Final = "longshore.io/strict"
"""`true` on a PVB: a file that changed while it was read makes it Failed."""
TAG_OBJECT: Final = "pvb"
TAG_OBJECT_UID: Final = "pvb-uid"
"""Tag of a snapshot: UID of the PodVolumeBackup that asked for it. A later attempt at the same object finds it by this."""
WAIT_FOLDER: Final = b".velero"
_WORKERS_MAX: Final = 256
_POD_ENDED: Final = frozenset({"Succeeded", "Failed"})
_TAKEN_AWAY: Final = "the pod ended while its volume was read, and the volume goes with the pod, so the snapshot may lack what was gone already"
_ANOTHER_POD: Final = "back up a pod that runs"
_READABLE: Final = "make them readable, or leave them out, and back up again"
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


class RepositoryOpener(Protocol):
    """Gives open repositories."""

    def writable(self, *, location: str, namespace: str) -> Repository:
        """Open the repository of a namespace at a location, making it when there is none.

        Raises:
            LongshoreError: why it cannot be had.
        """
        ...

    def readable(self, *, location: str, namespace: str) -> Repository:
        """Open the repository of a namespace at a location; it has to be there.

        Raises:
            LongshoreError: why it cannot be had.
        """
        ...

    def forget(self, *, location: str, namespace: str) -> None:
        """Open it anew the next time."""
        ...


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """What the work needs, read from the cluster."""

    location: str
    namespace: str
    uid: str
    pod: tuple[str, str]
    """Name and UID."""
    goes_with_pod: bool
    """Whether nothing of the volume stays when the pod ends."""
    path: VolumePath
    request: BackupRequest
    may_exist: bool
    """Whether an earlier attempt may have left a snapshot."""


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """What the work came to: a result, or a snapshot that an earlier attempt had committed."""

    path: str
    result: BackupResult | None = None
    found: Snapshot | None = None
    pod_ended: bool = False
    """Whether the volume may have been taken away while it was read."""


class PodVolumeBackupController(PodVolumeController):
    """See the module's text."""

    kind: ClassVar[str] = "PodVolumeBackup"
    resource: ClassVar[Resource] = resource_of(PodVolumeBackup.definition)
    verb: ClassVar[str] = "back up"

    def __init__(
        self,
        context: AgentContext,
        *,
        enqueue: Callable[[str], None],
        cluster: ClusterReader,
        repositories: RepositoryOpener,
        host_root: Path,
        memory_limit_bytes: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            host_root: where the kubelet's folder of pods is mounted.
            memory_limit_bytes: for one job.
        """
        super().__init__(context, enqueue=enqueue)
        self._cluster = cluster
        self._repositories = repositories
        self._host_root = host_root
        self._memory_limit_bytes = memory_limit_bytes

    def is_ours(self, obj: JsonObject) -> bool:
        """Whether it names our node."""
        spec = obj.get("spec")
        return isinstance(spec, dict) and spec.get("node") == self.context.node

    def parse(self, obj: JsonObject) -> PodVolumeBackup:
        """Read the object."""
        return PodVolumeBackup.from_dict(obj)

    def may_claim(self, parsed: PodVolumeBackup) -> Requeue | Ending | None:  # noqa: ARG002 - the table's shape
        """Begin at once."""
        return None

    def plan(self, parsed: PodVolumeBackup, *, claimed_here: bool) -> BackupPlan | Ending:
        """Look the volume up."""
        spec, metadata = parsed.spec, parsed.metadata
        found = find_volume(
            self._cluster, spec.pod.name, namespace=spec.pod.namespace, uid=spec.pod.uid, volume=spec.volume
        )
        if reason := filled_by_kubernetes(found.volume):
            return Ending(PodVolumePhase.COMPLETED, reason)
        path = found.locate(self._cluster, host_root=self._host_root)
        return BackupPlan(
            location=_named(spec.backup_storage_location, field="spec.backupStorageLocation"),
            namespace=found.pod.metadata.namespace,
            uid=metadata.uid,
            pod=(found.pod.metadata.name, found.pod.metadata.uid),
            goes_with_pod=found.claim is None,
            path=path,
            may_exist=not claimed_here,
            request=BackupRequest(
                path=str(path),
                source=identity_of(found.pod, found.volume, claim=found.claim, node=self.context.node),
                host=self.context.node,
                tags={**spec.tags, TAG_OBJECT: metadata.name, TAG_OBJECT_UID: metadata.uid},
                parent=_parent(spec.parent_snapshot),
                exclude_root_names=(WAIT_FOLDER,),
                strict=metadata.annotations.get(ANNOTATION_STRICT) == "true",
                workers=workers_of(spec.uploader_settings, "ParallelFilesUpload"),
                memory_limit_bytes=self._memory_limit_bytes,
            ),
        )

    def work(self, task: Task, plan: BackupPlan) -> BackupOutcome:
        """Run the backup, unless an earlier attempt had got to its end."""
        task.check()
        repository = self._repositories.writable(location=plan.location, namespace=plan.namespace)
        task.check()
        with forgetting(self._repositories, location=plan.location, namespace=plan.namespace):
            return self._back_up(task, plan, repository)

    def _back_up(self, task: Task, plan: BackupPlan, repository: Repository) -> BackupOutcome:
        if plan.may_exist:
            for snapshot in repository.snapshots():
                if snapshot.tags.get(TAG_OBJECT_UID) == plan.uid:
                    _log.info("Found the snapshot of an earlier attempt", snapshot=snapshot.id, uid=plan.uid)
                    return BackupOutcome(str(plan.path), found=snapshot, pod_ended=self._has_ended(plan))
        result = task.run(lambda: repository.backup(plan.request))
        log_items("not captured", result.lost, count=result.items_lost, kind=self.kind, key=task.key)
        return BackupOutcome(str(plan.path), result=result, pod_ended=self._has_ended(plan))

    def _has_ended(self, plan: BackupPlan) -> bool:
        """Whether the kubelet may have begun to take the volume away: it does so when no container of a pod that ends is left."""
        if not plan.goes_with_pod:
            return False
        name, uid = plan.pod
        pod = self._cluster.pod(name, namespace=plan.namespace)
        if pod is None or pod.metadata.uid != uid:
            return True
        if not pod.metadata.is_being_deleted and pod.status.phase not in _POD_ENDED:
            return False
        statuses = (*pod.status.container_statuses, *pod.status.init_container_statuses)
        return all(one.state.running is None for one in statuses)

    def ending(self, obj: JsonObject, outcome: BackupOutcome) -> Ending:  # noqa: ARG002 - the table's shape
        """Completed, or Failed with what is kept."""
        if outcome.found is not None:
            return _ending_of_found(outcome.path, outcome.found, pod_ended=outcome.pod_ended)
        result = outcome.result
        assert result is not None
        fields: JsonObject = {
            "path": outcome.path,
            "progress": done_progress(files=result.files_total, size_bytes=result.bytes_total, seconds=result.seconds),
            "incrementalBytes": result.bytes_read,
        }
        if result.snapshot_id is not None:
            fields["snapshotID"] = result.snapshot_id
        changed = describe_changed(result.changed, count=result.items_changed)
        resumed = describe_resumed(files=result.files_resumed, size_bytes=result.bytes_resumed)
        changed = "; ".join(part for part in (changed, resumed) if part)
        if result.exit_code == 0 and not outcome.pod_ended and result.snapshot_id is not None:
            return Ending(PodVolumePhase.COMPLETED, changed, fields)
        lost = ""
        if result.items_lost:
            head = "some items could not be read, the snapshot holds the rest"
            lost = describe_lost(head, result.lost, count=result.items_lost)
        if outcome.pod_ended:
            cause, step = _TAKEN_AWAY, _ANOTHER_POD
        elif lost:
            cause, step = "", _READABLE
        else:
            cause, step = (
                "the backup is not whole and counts as failed",
                "see why in the agent's log, and back up again",
            )
        # The step comes last, where who reads it, and who cuts a long message, looks for it.
        told = "; ".join(part for part in (cause, lost, changed, step) if part)
        return Ending(PodVolumePhase.FAILED, told, fields)


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A pod's volume with its PVC and PV, as the cluster has them."""

    pod: Any
    volume: Any
    claim: Any
    persistent_volume: Any

    def locate(self, cluster: ClusterReader, *, host_root: Path) -> VolumePath:
        """Find its folder on this node.

        Raises:
            LongshoreError: as :func:`longshore.volumes.locate` and :func:`longshore.volumes.check_supported`.
        """
        check_supported(self.pod, self.volume, claim=self.claim, pv=self.persistent_volume)
        asks_drivers = self.persistent_volume is not None and self.persistent_volume.spec.csi is None
        drivers = cluster.csi_drivers() if asks_drivers else frozenset()
        folder = folder_of(self.volume, claim=self.claim, pv=self.persistent_volume, csi_drivers=drivers)
        return locate(self.pod, folder, host_root=host_root)


def find_volume(cluster: ClusterReader, pod_name: str, *, namespace: str, uid: str, volume: str) -> FoundVolume:
    """Read a pod, its volume, and what is behind it.

    Args:
        uid: of the pod; empty for whichever pod has the name now.

    Raises:
        NotFoundError: the pod, or another one has its name now; its PVC or PV.
        VolumeNotFoundError: the pod has no such volume.
    """
    if not pod_name or not namespace:
        raise UsageError(
            f"the pod is not named: namespace={namespace!r}, pod={pod_name!r}",
            "write spec.pod.namespace and spec.pod.name",
        )
    pod = cluster.pod(pod_name, namespace=namespace)
    if pod is None or (uid and pod.metadata.uid != uid):
        cause = "the pod is not there" if pod is None else "the pod is gone, another one has its name"
        raise NotFoundError(f"{cause}: pod={namespace}/{pod_name}, uid={uid}", "start it again with a pod that runs")
    found = volume_of(pod, volume)
    claim_name = claim_name_of(pod, found)
    if claim_name is None:
        return FoundVolume(pod, found, None, None)
    claim = cluster.claim(claim_name, namespace=namespace)
    if claim is None:
        raise VolumeNotFoundError(
            f"the volume's PVC is not there: pvc={namespace}/{claim_name}, volume={volume}", "see kubectl get pvc"
        )
    bound = claim.spec.volume_name
    pv = cluster.persistent_volume(bound) if bound else None
    if bound and pv is None:
        raise VolumeNotFoundError(
            f"the PVC's volume is not there: pv={bound}, pvc={namespace}/{claim_name}", "see kubectl get pv"
        )
    return FoundVolume(pod, found, claim, pv)


@contextlib.contextmanager
def forgetting(repositories: RepositoryOpener, *, location: str, namespace: str) -> Iterator[None]:
    """Let go of a repository that turned out to be gone, exchanged, or closed to our credentials, so that the next one opens it anew."""
    try:
        yield
    except (NotFoundError, DeniedError, CorruptError):
        repositories.forget(location=location, namespace=namespace)
        raise


def workers_of(settings: Mapping[str, str], name: str) -> int | None:
    """Read a number of files at once from uploaderSettings; None when it is not set.

    Raises:
        UsageError: it is no such number.
    """
    text = settings.get(name, "")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > _WORKERS_MAX:
        raise UsageError(
            f"not a number of files at once: field=spec.uploaderSettings.{name}, value={text!r}",
            f"write a number from 1 to {_WORKERS_MAX}",
        )
    return int(text)


def _parent(text: str) -> str | None:
    # A parent only saves reading: one that another data path made is as good as none.
    return text if text == "none" or is_ours(text) else None


def _named(text: str, *, field: str) -> str:
    if not text:
        raise UsageError(f"a field is empty: field={field}", "name a BackupStorageLocation")
    return text


def _ending_of_found(path: str, snapshot: Snapshot, *, pod_ended: bool) -> Ending:
    fields: JsonObject = {
        "path": path,
        "snapshotID": snapshot.id,
        "progress": done_progress(files=snapshot.files_total, size_bytes=snapshot.bytes_total, seconds=0.0),
    }
    if pod_ended:
        return Ending(PodVolumePhase.FAILED, f"{_TAKEN_AWAY}; {_ANOTHER_POD}", fields)
    if snapshot.items_lost:
        head = "some items could not be read, the snapshot holds the rest and names them"
        lost = describe_lost(head, (), count=snapshot.items_lost)
        return Ending(PodVolumePhase.FAILED, f"{lost}; {_READABLE}", fields)
    return Ending(PodVolumePhase.COMPLETED, "", fields)
