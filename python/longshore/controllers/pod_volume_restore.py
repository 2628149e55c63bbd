"""PodVolumeRestore: one snapshot goes into one volume of a pod that waits for it on this node.

What the table of :mod:`longshore.controllers.pod_volume` does not say:

- *Ours* is what names a pod of our node, by our own copy of the node's pods; once claimed, what names our node in `status.node` or, where Velero's definitions
  drop that field, in an annotation.
- *Claimed* only when the pod's waiting container runs: before that the volumes need not be mounted, after that the pod's own containers may have begun to
  write. A pod whose container has ended is not restored into: Failed.
- *A takeover* looks first whether the earlier attempt had come to its end (done-file there, or the container is over). Then the volume belongs to the pod, and
  the object is Completed without touching a byte of it.
- *The work*: remove a `.velero` left from before and what a killed attempt had not finished, restore, the root's own metadata last, then the done-file.
- *A root that the container cannot search* keeps o+x until the container has ended. Its true mode stands in an annotation before the root is opened to
  others, so that whoever finds the object later can set it.
- *A `.velero` that the container cannot remove*, for it may not write the root, is removed when the container has ended; an annotation says so.
- *What comes after the end* is :mod:`longshore.controllers.after_restore`'s.
- *The end*: items that could not be restored, or data that did not verify, make it Failed, and no done-file is written: the pod does not start over half a
  volume.
- *Nobody's* is what names no pod, or one that is nowhere in the cluster: no agent would ever find it on its node. When it is old enough one of the agents ends
  it, each after a time of its own, so that not all of them ask at once.
- *setuid, devices, file capabilities* lend rights that a tenant could have planted in a volume: they are left out, and named, unless the object or the
  agent's default allows them.

It does not know keys, credentials or stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final, Protocol

from longshore.api.core import Pod
from longshore.api.model import JsonObject
from longshore.api.pod_volume import PodVolumePhase, PodVolumeRestore
from longshore.api.values import Timestamp
from longshore.controllers import restore_wait
from longshore.controllers.after_restore import (
    ANNOTATION_ROOT_MODE,
    ANNOTATION_WAIT_FOLDER,
    AfterRestore,
    restore_uid_of,
    root_mode,
)
from longshore.controllers.claims import node_of
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.items import describe_lost, log_items
from longshore.controllers.phases import Ending, done_progress, failed
from longshore.controllers.pod_volume import AgentContext, PodVolumeController, is_cancelled
from longshore.controllers.pod_volume_backup import RepositoryOpener, find_volume, forgetting, workers_of
from longshore.controllers.ports import Allowance, RestoreRequest, RestoreResult, allowances
from longshore.controllers.restore_wait import Waiting
from longshore.controllers.snapshot_ids import check_ours
from longshore.controllers.tasks import Task
from longshore.errors import LongshoreError, NotFoundError, UnsupportedError, UsageError, VolumeNotFoundError
from longshore.kube.resource import Resource
from longshore.logs import get_logger
from longshore.objectstore.settings import repository_prefix
from longshore.runtime.controller import Requeue
from longshore.volumes import VolumePath, filled_by_kubernetes

__all__ = [
    "ANNOTATION_ALLOW",
    "SETTING_ALLOW",
    "PodVolumeRestoreController",
    "PodsOfNode",
    "allowed_by",
    "source_namespace",
]

_log = get_logger(__name__)

ANNOTATION_ALLOW: Final = "longshore.io/restore-allow"
"""On a PVR: what of setuid, devices and capabilities is brought back, with commas between; `none` for nothing, whatever the agent's default is."""
SETTING_ALLOW: Final = "RestoreAllow"
"""The same in `spec.uploaderSettings`, for whoever writes those; the annotation goes before it."""
_WAIT_SECONDS: Final = 30.0
"""Events of the pod come sooner; this is for the one that was missed."""


class PodsOfNode(Protocol):
    """Our copy of the node's pods."""

    def get(self, name: str, *, namespace: str | None = None) -> JsonObject | None:
        """A pod as last seen, or None."""
        ...


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What the work needs, read from the cluster."""

    location: str
    namespace: str
    path: VolumePath
    restore_uid: str
    request: RestoreRequest
    waiter: restore_wait.WaiterUser
    waiter_name: str


@dataclass(slots=True)
class RestoreOutcome:
    """What the work came to."""

    plan: RestorePlan
    result: RestoreResult
    true_mode: int | None
    """Of the root, where it has to be opened to the waiting container; None where it need not."""
    left_behind: bool = False
    """Whether the waiting container will not be able to remove `.velero`."""
    pod_told: bool = False
    """Whether the done-file was written: from then on the volume is the pod's, and writing the status again must not touch it."""


class PodVolumeRestoreController(PodVolumeController):
    """See the module's text."""

    kind: ClassVar[str] = "PodVolumeRestore"
    resource: ClassVar[Resource] = resource_of(PodVolumeRestore.definition)
    verb: ClassVar[str] = "restore"

    def __init__(
        self,
        context: AgentContext,
        *,
        enqueue: Callable[[str], None],
        cluster: ClusterReader,
        pods: PodsOfNode,
        repositories: RepositoryOpener,
        host_root: Path,
        memory_limit_bytes: int | None = None,
        restore_owner: bool = True,
        allow: frozenset[Allowance] = frozenset(),
    ) -> None:
        """Prepare.

        Args:
            allow: what a restore that says nothing itself may bring back.
            pods: the node's pods.
            host_root: where the kubelet's folder of pods is mounted.
            memory_limit_bytes: for one job.
            restore_owner: whether this process may give files away.
        """
        super().__init__(context, enqueue=enqueue)
        self._cluster = cluster
        self._pods = pods
        self._repositories = repositories
        self._host_root = host_root
        self._memory_limit_bytes = memory_limit_bytes
        self._restore_owner = restore_owner
        self._allow = allow
        self._after = AfterRestore(context, cluster=cluster, host_root=host_root, patch=self.patch)

    def is_ours(self, obj: JsonObject) -> bool:
        """Whether its pod is on our node, or we had it before."""
        node = node_of(obj)
        if node:
            return node == self.context.node
        return self._pod_seen(obj) is not None

    def unclaimed(self, obj: JsonObject) -> Ending | None:
        """Fail, or cancel, an old one whose pod is nowhere."""
        metadata = obj["metadata"]
        made = _made_at(metadata)
        turn = hashlib.sha256(f"{self.context.node}/{metadata.get('uid')}".encode()).digest()[0] / 256
        patience = self.context.unclaimed_seconds * (1.0 + turn)
        age = None if made is None else (self.context.clock.now() - made).total_seconds()
        if node_of(obj) or age is None or age < patience:
            return None
        cause = self._pod_missing(obj)
        if cause is None:
            return None
        step = "restore again with a pod that is there"
        ending = failed(NotFoundError(cause, step), doing=self._doing(obj))
        if is_cancelled(obj):
            ending = Ending(PodVolumePhase.CANCELED, "cancelled before any work began")
        return ending

    def _pod_missing(self, obj: JsonObject) -> str | None:
        """Say why no agent can ever find the pod; None when the cluster has it."""
        spec = obj.get("spec")
        reference = spec.get("pod") if isinstance(spec, dict) else None
        parts = reference if isinstance(reference, Mapping) else {}
        namespace, name, uid = (parts.get(part) for part in ("namespace", "name", "uid"))
        if not isinstance(namespace, str) or not isinstance(name, str) or not namespace or not name:
            return "the pod is not named: field=spec.pod"
        try:
            pod = self._cluster.pod(name, namespace=namespace)
        except UsageError as err:
            return f"the pod is not named: field=spec.pod, error={err}"
        if pod is None:
            return f"the pod is not there: pod={namespace}/{name}"
        if uid and pod.metadata.uid != uid:
            return f"the pod is gone, another one has its name: pod={namespace}/{name}, uid={uid}"
        return None

    def parse(self, obj: JsonObject) -> PodVolumeRestore:
        """Read the object."""
        return PodVolumeRestore.from_dict(obj)

    def may_claim(self, parsed: PodVolumeRestore) -> Requeue | Ending | None:
        """Begin when the pod's container waits."""
        check_ours(parsed.spec.snapshot_id)
        restore_uid_of(parsed)
        seen = self._pod_seen({"spec": {"pod": parsed.spec.pod.to_dict()}})
        if seen is None:
            return Requeue(_WAIT_SECONDS)
        match restore_wait.waiting(seen):
            case Waiting.RUNNING:
                return None
            case Waiting.PENDING:
                return Requeue(_WAIT_SECONDS)
            case Waiting.ABSENT:
                raise UnsupportedError(
                    f"nothing holds the pod while its volume is filled: pod={_pod_name(parsed)}, expected_init_container=restore-wait",
                    "restore the pod with a restore, which adds that container",
                )
            case Waiting.OVER:
                raise VolumeNotFoundError(
                    f"the pod has gone on already, its volume may be in use: pod={_pod_name(parsed)}",
                    "delete the pod and restore again",
                )

    def plan(self, parsed: PodVolumeRestore, *, claimed_here: bool) -> RestorePlan | Ending:
        """Look the volume up, and whether an earlier attempt had come to its end."""
        spec = parsed.spec
        check_ours(spec.snapshot_id)
        restore_uid = restore_uid_of(parsed)
        found = find_volume(
            self._cluster, spec.pod.name, namespace=spec.pod.namespace, uid=spec.pod.uid, volume=spec.volume
        )
        if reason := filled_by_kubernetes(found.volume):
            raise UnsupportedError(f"the volume is not restored: {reason}", "remove the PodVolumeRestore")
        path = found.locate(self._cluster, host_root=self._host_root)
        state = restore_wait.waiting(found.pod)
        if not claimed_here and (state is Waiting.OVER or restore_wait.has_done_file(path, restore_uid)):
            return Ending(PodVolumePhase.COMPLETED, "an earlier instance of the agent had restored the volume")
        if state is not Waiting.RUNNING:
            raise VolumeNotFoundError(
                f"the pod's container does not wait any more: pod={_pod_name(parsed)}, container={state}",
                "delete the pod and restore again",
            )
        waiter = restore_wait.waiter_of(found.pod)
        return RestorePlan(
            location=spec.backup_storage_location,
            namespace=source_namespace(parsed),
            path=path,
            restore_uid=restore_uid,
            waiter=restore_wait.waiter_user(found.pod),
            waiter_name="" if waiter is None else waiter.name,
            request=RestoreRequest(
                snapshot_id=spec.snapshot_id,
                target=str(path),
                host=self.context.node,
                workers=workers_of(spec.uploader_settings, "ParallelFilesDownload"),
                memory_limit_bytes=self._memory_limit_bytes,
                restore_owner=self._restore_owner,
                allow=allowed_by(parsed, default=self._allow),
            ),
        )

    def work(self, task: Task, plan: RestorePlan) -> RestoreOutcome:
        """Fill the volume; the done-file is for `ending`."""
        task.check()
        repository = self._repositories.readable(location=plan.location, namespace=plan.namespace)
        task.check()
        if restore_wait.remove_leftovers(plan.path):
            _log.info("Removed what an earlier restore had left", path=str(plan.path))
        with forgetting(self._repositories, location=plan.location, namespace=plan.namespace):
            result = task.run(lambda: repository.restore(plan.request))
        log_items("not restored", result.lost, count=result.items_lost, kind=self.kind, key=task.key)
        log_items("left out by policy", result.dropped, count=result.items_dropped, kind=self.kind, key=task.key)
        hidden = restore_wait.true_mode_if_hidden(plan.path, plan.waiter) if result.exit_code == 0 else None
        left_behind = result.exit_code == 0 and restore_wait.is_left_behind(plan.path, plan.waiter)
        return RestoreOutcome(plan, result, hidden, left_behind)

    def ending(self, obj: JsonObject, outcome: RestoreOutcome) -> Ending:
        """Completed with a done-file, or Failed without one."""
        plan, result = outcome.plan, outcome.result
        fields: JsonObject = {
            "progress": done_progress(files=result.files_total, size_bytes=result.bytes_total, seconds=result.seconds)
        }
        if result.exit_code != 0:
            head = "the volume is not whole, and the pod is not let go on"
            message = describe_lost(head, result.lost, count=result.items_lost)
            step = (
                "correct the cause, delete the pod and restore again; what was restored can be looked at in the volume"
            )
            return Ending(PodVolumePhase.FAILED, f"{message}; {step}", fields)
        annotations: dict[str, str | None] = {}
        left_out = ""
        if result.items_dropped:
            left_out = describe_lost(
                left_out_because(restore_owner=self._restore_owner),
                result.dropped,
                count=result.items_dropped,
                counted="items_left_out",
            )
        message = ""
        if outcome.true_mode is not None:
            octal = f"{outcome.true_mode:04o}"
            message = (
                f"the root of the volume keeps o+x until container {plan.waiter_name} has ended, because its user could not "
                f"search it; then it gets its true mode: mode={octal}"
            )
            if root_mode(obj) != outcome.true_mode:
                # Before the root is opened: who finds a root that is open finds its true mode too.
                obj["metadata"] = self.patch(obj, {"metadata": {"annotations": {ANNOTATION_ROOT_MODE: octal}}})[
                    "metadata"
                ]
        elif root_mode(obj) is not None:
            annotations[ANNOTATION_ROOT_MODE] = None
        if outcome.left_behind:
            annotations[ANNOTATION_WAIT_FOLDER] = "remove"
        if not outcome.pod_told:
            try:
                restore_wait.write_done_file(
                    plan.path,
                    plan.restore_uid,
                    open_to_others=outcome.true_mode is not None,
                    owner=plan.waiter.uid,
                )
            except LongshoreError as err:
                if err.retryable:
                    raise
                text = f"the volume is restored, but the pod cannot be told: {err.told()}"
                return Ending(PodVolumePhase.FAILED, text, fields)
            outcome.pod_told = True
        text = "; ".join(part for part in (message, left_out) if part)
        return Ending(PodVolumePhase.COMPLETED, text, fields, annotations)

    def final(self, obj: JsonObject) -> Requeue | None:
        """Look after the volume and its pod (:mod:`longshore.controllers.after_restore`)."""
        again = super().final(obj)
        if not self.context.lease.is_leader():
            return again
        return self._after.look(obj, pod=self._pod_seen(obj)) or again

    def _pod_seen(self, obj: JsonObject) -> Pod | None:
        """The pod as our copy of the node's pods has it; None when it is not there or nonsense stands in the object."""
        spec = obj.get("spec")
        reference = spec.get("pod") if isinstance(spec, dict) else None
        if not isinstance(reference, Mapping):
            return None
        namespace, name, uid = (reference.get(part) for part in ("namespace", "name", "uid"))
        if not isinstance(namespace, str) or not isinstance(name, str) or not namespace or not name:
            return None
        found = self._pods.get(name, namespace=namespace)
        if found is None or (uid and found["metadata"].get("uid") != uid):
            return None
        return Pod.from_dict(found)


def source_namespace(parsed: PodVolumeRestore) -> str:
    """Tell whose repository holds the snapshot: as written; else as the last segment of a restic address says; else the pod's."""
    if parsed.spec.source_namespace:
        return parsed.spec.source_namespace
    last = parsed.spec.repo_identifier.rstrip("/").rpartition("/")[2]
    try:
        repository_prefix("", namespace=last)
    except UsageError:
        return parsed.spec.pod.namespace
    return last


def left_out_because(*, restore_owner: bool) -> str:
    """Say why a restore that is whole lacks something: policy, and in an agent that is not root the owners, too."""
    if restore_owner:
        return f"left out because they lend rights beyond owner and mode (annotation {ANNOTATION_ALLOW} lets them in)"
    return (
        "owners are left out because the agent is not root, and what lends rights beyond owner and mode "
        f"(annotation {ANNOTATION_ALLOW} lets that in)"
    )


def allowed_by(parsed: PodVolumeRestore, *, default: frozenset[Allowance]) -> frozenset[Allowance]:
    """Tell what of a snapshot may lend rights beyond owner and mode.

    Raises:
        UsageError: the object asks for something that there is not.
    """
    for where, values in (
        (f"metadata.annotations.{ANNOTATION_ALLOW}", parsed.metadata.annotations.get(ANNOTATION_ALLOW)),
        (f"spec.uploaderSettings.{SETTING_ALLOW}", parsed.spec.uploader_settings.get(SETTING_ALLOW)),
    ):
        if values:
            return allowances(values, field=where)
    return default


def _made_at(metadata: JsonObject) -> datetime | None:
    try:
        return Timestamp(str(metadata.get("creationTimestamp") or "")).time
    except LongshoreError:
        return None


def _pod_name(parsed: PodVolumeRestore) -> str:
    return f"{parsed.spec.pod.namespace}/{parsed.spec.pod.name}"
