"""What the PodVolumeBackups of a cluster say of each volume: when it was last safe, how its last backup ended, since when one works or waits.

A volume is its claim where the object says which (Velero labels it with the claim's UID), else the pod's name and the volume's. The latter ends with the pod,
so a pod of a Deployment that was made anew is another one here.

Promises: an object that holds nonsense is passed over; the same objects in any order give the same histories; one whose agent's clock was years ahead does
not hide what failed since.

It does not know pods, claims or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from longshore.api.model import JsonObject
from longshore.api.names import ANNOTATION_PVC_NAME, LABEL_PVC_UID, TAG_PVC_UID
from longshore.api.pod_volume import PodVolumeBackup, PodVolumePhase
from longshore.errors import LongshoreError

__all__ = ["VolumeHistory", "VolumeKey", "histories"]


@dataclass(frozen=True, slots=True)
class VolumeKey:
    """Which volume: a claim's UID, or a pod and a volume's name in it."""

    namespace: str
    claim_uid: str = ""
    pod: str = ""
    volume: str = ""


@dataclass(slots=True)
class VolumeHistory:
    """What is known of one volume."""

    key: VolumeKey
    claim: str = ""
    """The claim's name, where the objects say it."""
    pod: str = ""
    """Of the newest object."""
    volume: str = ""
    node: str = ""
    succeeded_at: datetime | None = None
    size_bytes: int = 0
    """Of the last success."""
    read_bytes: int = 0
    seconds: float = 0.0
    snapshot_id: str = ""
    backup: str = ""
    """The object of the last success."""
    failed_at: datetime | None = None
    """When the newest object that has ended did so, if it did not succeed."""
    failed_backup: str = ""
    """That one."""
    message: str = ""
    """What that one says."""
    working_since: datetime | None = None
    waiting_since: datetime | None = None


def histories(objects: Iterable[JsonObject]) -> dict[VolumeKey, VolumeHistory]:
    """Sort objects by volume and put each volume's story together."""
    found: dict[VolumeKey, VolumeHistory] = {}
    parsed = []
    for obj in objects:
        try:
            one = PodVolumeBackup.from_dict(obj)
            parsed.append((_began(one), one.metadata.name, one))
        except LongshoreError:
            continue
    for _, _, one in sorted(parsed, key=lambda entry: entry[:2]):
        key = _key(one)
        _add(found.setdefault(key, VolumeHistory(key)), one)
    return found


def _began(one: PodVolumeBackup) -> float:
    """The earlier of the two: an agent whose clock is ahead starts after it was asked by years, and an object from another cluster is made after it ended."""
    stamps = (one.status.start_timestamp, one.metadata.creation_timestamp)
    return min((at.time.timestamp() for at in stamps if at), default=0.0)


def _key(one: PodVolumeBackup) -> VolumeKey:
    spec = one.spec
    uid = one.metadata.labels.get(LABEL_PVC_UID) or spec.tags.get(TAG_PVC_UID) or ""
    if uid:
        return VolumeKey(spec.pod.namespace, claim_uid=uid)
    return VolumeKey(spec.pod.namespace, pod=spec.pod.name, volume=spec.volume)


def _add(history: VolumeHistory, one: PodVolumeBackup) -> None:
    """Add the next newer object."""
    spec, status = one.spec, one.status
    history.pod, history.volume, history.node = spec.pod.name, spec.volume, spec.node
    history.claim = one.metadata.annotations.get(ANNOTATION_PVC_NAME) or history.claim
    ended = status.completion_timestamp.time if status.completion_timestamp else None
    began = status.start_timestamp.time if status.start_timestamp else None
    match one.phase:
        case PodVolumePhase.COMPLETED if ended is not None:
            history.succeeded_at, history.failed_at = ended, None
            history.size_bytes = status.progress.total_bytes
            history.read_bytes = status.incremental_bytes or 0
            history.seconds = (ended - began).total_seconds() if began else 0.0
            history.snapshot_id, history.backup, history.message = status.snapshot_id, one.metadata.name, status.message
        case PodVolumePhase.FAILED | PodVolumePhase.CANCELED:
            history.failed_at, history.message = ended or began, status.message
            history.failed_backup = one.metadata.name
        case PodVolumePhase.IN_PROGRESS | PodVolumePhase.CANCELING:
            history.working_since = began or history.working_since
        case PodVolumePhase.NEW | PodVolumePhase.ACCEPTED | PodVolumePhase.PREPARED:
            made = one.metadata.creation_timestamp
            if made and history.waiting_since is None:
                history.waiting_since = made.time
        case _:
            return
