"""What a restored volume still needs when its restore has ended: its root, and its pod, are looked after.

- A root that had to be opened to the waiting container gets its true mode when that container has ended, and a `.velero` that the container could not remove
  goes. Annotations on the object say both, so that any instance of the agent can do it.
- A pod that waits again, for its node has booted and runs init containers once more (velero#8018), gets its done-file anew, once for each start of the
  container: the volume is as the pod left it. What lay in memory is gone with the boot: that pod goes on waiting, and it is said.

Does nothing without the node's Lease. It does not know how a restore is done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from longshore.api.core import Pod
from longshore.api.model import JsonObject
from longshore.api.names import LABEL_RESTORE_UID
from longshore.api.pod_volume import PodVolumePhase, PodVolumeRestore
from longshore.api.values import Timestamp
from longshore.controllers import restore_wait
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.pod_volume import AgentContext
from longshore.controllers.pod_volume_backup import FoundVolume, find_volume
from longshore.controllers.restore_wait import Waiting
from longshore.errors import LongshoreError, NotFoundError, UsageError
from longshore.kube.events import EventType
from longshore.logs import get_logger
from longshore.runtime.controller import Requeue

__all__ = [
    "ANNOTATION_ROOT_MODE",
    "ANNOTATION_TOLD_AGAIN",
    "ANNOTATION_WAIT_FOLDER",
    "AfterRestore",
    "restore_uid_of",
    "root_mode",
]

_log = get_logger(__name__)

ANNOTATION_ROOT_MODE: Final = "longshore.io/root-mode"
"""On a PVR: mode, in octal, that the volume's root gets when the waiting container has ended."""
ANNOTATION_WAIT_FOLDER: Final = "longshore.io/wait-folder"
"""On a PVR: `remove` while the agent has still to remove `.velero` from the volume."""
ANNOTATION_TOLD_AGAIN: Final = "longshore.io/told-again"
"""On a PVR: the start of the waiting container after which it was given another done-file, or was told of in vain."""
_KIND: Final = PodVolumeRestore.definition.kind
_RESOURCE: Final = resource_of(PodVolumeRestore.definition)
_WAITS_AGAIN: Final = "WaitsAgain"
_CLOSE_SECONDS: Final = 5.0


class AfterRestore:
    """See the module's text."""

    def __init__(
        self,
        context: AgentContext,
        *,
        cluster: ClusterReader,
        host_root: Path,
        patch: Callable[[JsonObject, JsonObject], JsonObject],
    ) -> None:
        """Prepare.

        Args:
            host_root: where the kubelet's folder of pods is mounted.
            patch: writes a change if the object still is what was read, and gives what is there now.
        """
        self._context = context
        self._cluster = cluster
        self._host_root = host_root
        self._patch = patch

    def look(self, obj: JsonObject, *, pod: Pod | None) -> Requeue | None:
        """Do what is to be done now for a restore that has ended.

        Args:
            obj: the restore.
            pod: as our copy of the node's pods has it.

        Raises:
            LongshoreError: it is tried again.
        """
        try:
            self._let_go_again(obj, pod)
        except LongshoreError as err:
            if err.retryable:
                raise
            _log.warning("Pod that waits again cannot be told", kind=_KIND, key=_key(obj), error=err)
        mode, left_behind = root_mode(obj), _annotation(obj, ANNOTATION_WAIT_FOLDER) is not None
        if mode is None and not left_behind:
            return None
        done = False
        try:
            parsed = PodVolumeRestore.from_dict(obj)
            found = self._find(parsed)
            if restore_wait.waiting(found.pod) in {Waiting.RUNNING, Waiting.PENDING}:
                return Requeue(_CLOSE_SECONDS)
            path = found.locate(self._cluster, host_root=self._host_root)
            if left_behind and restore_wait.remove_done_file(path, restore_uid_of(parsed)):
                _log.info("Removed what the waiting container could not", path=str(path))
            done = mode is not None and restore_wait.close_root(path, mode)
        except (NotFoundError, UsageError) as err:
            # The pod or its volume is gone, and with it whoever could have looked in.
            _log.info("Root was left as it is, the volume is gone", key=_key(obj), error=err)
        change: JsonObject = {"metadata": {"annotations": {ANNOTATION_ROOT_MODE: None, ANNOTATION_WAIT_FOLDER: None}}}
        if mode is not None and (obj.get("status") or {}).get("phase") == PodVolumePhase.COMPLETED:
            said = "the root has its true mode" if done else "the root was left as it is"
            change["status"] = {"message": f"{said}, for the waiting container has ended: mode={mode:04o}"}
        metadata = obj["metadata"]
        fresh = self._context.client.get(_RESOURCE, metadata["name"], namespace=metadata["namespace"])
        if fresh["metadata"].get("uid") == metadata.get("uid"):
            self._patch(fresh, change)
        return None

    def _find(self, parsed: PodVolumeRestore) -> FoundVolume:
        pod = parsed.spec.pod
        return find_volume(self._cluster, pod.name, namespace=pod.namespace, uid=pod.uid, volume=parsed.spec.volume)

    def _let_go_again(self, obj: JsonObject, pod: Pod | None) -> None:
        """Write the done-file once more for a pod whose container was started after its volume had been restored."""
        status = obj.get("status") or {}
        if pod is None or status.get("phase") != PodVolumePhase.COMPLETED:
            return
        started, ended = restore_wait.started(pod), status.get("completionTimestamp")
        if not started or not ended or _annotation(obj, ANNOTATION_TOLD_AGAIN) == started:
            return
        if Timestamp(started).time <= Timestamp(ended).time:
            return
        parsed = PodVolumeRestore.from_dict(obj)
        found, name = self._find(parsed), restore_uid_of(parsed)
        where = f"pod={parsed.spec.pod.namespace}/{parsed.spec.pod.name}, volume={parsed.spec.volume}"
        if (found.volume.empty_dir or {}).get("medium") == "Memory":
            text = f"the waiting container was started again, and what was restored is gone, for the volume lay in memory: {where}"
            self._tell(obj, started, EventType.WARNING, f"{text}; delete the pod and restore again")
            return
        path = found.locate(self._cluster, host_root=self._host_root)
        if restore_wait.has_done_file(path, name):
            return
        waiter = restore_wait.waiter_user(found.pod)
        hidden = restore_wait.true_mode_if_hidden(path, waiter)
        annotations: JsonObject = {}
        if hidden is not None:
            # Before the root is opened: who finds a root that is open finds its true mode too.
            annotations[ANNOTATION_ROOT_MODE] = f"{hidden:04o}"
        if restore_wait.is_left_behind(path, waiter):
            annotations[ANNOTATION_WAIT_FOLDER] = "remove"
        if annotations:
            obj["metadata"] = self._patch(obj, {"metadata": {"annotations": annotations}})["metadata"]
        restore_wait.write_done_file(path, name, open_to_others=hidden is not None, owner=waiter.uid)
        text = "the waiting container was started again after the restore, and may go on, for the volume is whole"
        self._tell(obj, started, EventType.NORMAL, f"{text}: {where}")

    def _tell(self, obj: JsonObject, started: str, event_type: EventType, text: str) -> None:
        """Remember for which start of the waiting container something was done, and say what."""
        change: JsonObject = {"metadata": {"annotations": {ANNOTATION_TOLD_AGAIN: started}}}
        obj["metadata"] = self._patch(obj, change)["metadata"]
        _log.info("Pod waited again", kind=_KIND, key=_key(obj), started=started, reason=text)
        self._context.recorder.record(obj, event_type, _WAITS_AGAIN, text)


def restore_uid_of(parsed: PodVolumeRestore) -> str:
    """Tell the name of the done-file: the UID of the Restore that owns the object, else its label.

    Raises:
        UsageError: neither is there, or it is no UID.
    """
    owner = parsed.metadata.controller_owner
    found = owner.uid if owner is not None and owner.uid else parsed.metadata.labels.get(LABEL_RESTORE_UID, "")
    return restore_wait.check_restore_uid(found)


def root_mode(obj: JsonObject) -> int | None:
    """Read which mode the root gets in the end; None where nothing sensible is written."""
    text = _annotation(obj, ANNOTATION_ROOT_MODE)
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 5:
        return None
    try:
        return int(text, 8) & 0o7777
    except ValueError:
        return None


def _annotation(obj: JsonObject, name: str) -> str | None:
    found = ((obj.get("metadata") or {}).get("annotations") or {}).get(name)
    return found if isinstance(found, str) else None


def _key(obj: JsonObject) -> str:
    return f"{obj['metadata'].get('namespace')}/{obj['metadata'].get('name')}"
