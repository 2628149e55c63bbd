"""What is written into the status of a PodVolumeBackup or PodVolumeRestore: merge patches, one for each step.

Promises
- A terminal patch always carries `completionTimestamp`, and `startTimestamp` where there was none.
- Messages name thing, cause and next step, hold no secret that can be recognised, and are bounded.
- The finalizer that another agent left is taken off together with the terminal phase, so that a deletion never waits for us. We put none on.

It does not know who may write (:mod:`longshore.controllers.claims`), nor clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from longshore.api.model import JsonObject
from longshore.api.names import FINALIZER_POD_VOLUME
from longshore.api.pod_volume import PodVolumePhase
from longshore.controllers.ports import Progress
from longshore.errors import LongshoreError
from longshore.kube.clock import format_time
from longshore.logs import redact

__all__ = [
    "Ending",
    "failed",
    "progress_patch",
    "terminal_patch",
    "without_finalizer",
]

_MESSAGE_CHARS_MAX: Final = 16_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How an object ends."""

    phase: PodVolumePhase
    message: str = ""
    fields: Mapping[str, Any] | None = None
    """Further fields of the status."""
    annotations: Mapping[str, str | None] | None = None


def failed(error: BaseException, *, doing: str) -> Ending:
    """End as Failed, with what was being done, why it did not work, and the next step."""
    unknown = f"an unexpected fault: error={type(error).__name__}: {error}; report it with the agent's log"
    text = error.told() if isinstance(error, LongshoreError) else unknown
    return Ending(PodVolumePhase.FAILED, f"{doing}: {text}")


def terminal_patch(obj: JsonObject, ending: Ending, *, now: datetime) -> JsonObject:
    """Write an ending.

    Args:
        obj: the object as it was read; decides whether a start is missing and a finalizer is to go.
    """
    status: JsonObject = {
        "phase": str(ending.phase),
        "message": bounded(ending.message),
        "completionTimestamp": format_time(now),
        **(ending.fields or {}),
    }
    if not _status(obj).get("startTimestamp"):
        status["startTimestamp"] = status["completionTimestamp"]
    patch: JsonObject = {"status": status}
    metadata = without_finalizer(obj)
    if ending.annotations:
        metadata = {**(metadata or {}), "annotations": dict(ending.annotations)}
    if metadata:
        patch["metadata"] = metadata
    return patch


def without_finalizer(obj: JsonObject) -> JsonObject | None:
    """Give the metadata patch that takes off another agent's finalizer; None when there is none."""
    finalizers = (obj.get("metadata") or {}).get("finalizers") or []
    if FINALIZER_POD_VOLUME not in finalizers:
        return None
    # A merge patch replaces the list: without the version that it was read at, somebody else's could be lost.
    return {"finalizers": [name for name in finalizers if name != FINALIZER_POD_VOLUME]}


def progress_patch(progress: Progress, *, seconds: float) -> JsonObject:
    """Write how far the data path has come.

    Args:
        seconds: since the job began, for the mean rate.
    """
    fields: JsonObject = {
        "totalBytes": max(progress.bytes_total, progress.bytes_done),
        "bytesDone": progress.bytes_done,
        "totalFiles": max(progress.files_total, progress.files_done),
        "filesDone": progress.files_done,
    }
    if seconds > 0.0:
        fields["bytesPerSecond"] = int(progress.bytes_done / seconds)
    return fields


def done_progress(*, files: int, size_bytes: int, seconds: float) -> JsonObject:
    """Write the progress of what is complete."""
    fields: JsonObject = {"totalBytes": size_bytes, "bytesDone": size_bytes, "totalFiles": files, "filesDone": files}
    if seconds > 0.0:
        fields["bytesPerSecond"] = int(size_bytes / seconds)
    return fields


def bounded(text: str) -> str:
    """Cut a message to what a status may hold, with what looks like a secret blotted out."""
    clean = str(redact(text))
    return clean if len(clean) <= _MESSAGE_CHARS_MAX else clean[: _MESSAGE_CHARS_MAX - 1] + "…"


def _status(obj: JsonObject) -> JsonObject:
    status = obj.get("status")
    return status if isinstance(status, dict) else {}
