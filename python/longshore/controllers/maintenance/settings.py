"""How maintenance runs: Velero's config map for maintenance Jobs, key by key, with what we add to it, and annotations on single repositories.

The config map (named by `--repo-maintenance-job-configmap`) has an entry `global` and entries `<namespace>-<location>-<type>`, each in JSON::

    loadAffinity               list of {nodeSelector: {matchLabels, matchExpressions}}: nodes that fit any of them
    podResources               cpuRequest, cpuLimit, memoryRequest, memoryLimit
    keepLatestMaintenanceJobs  how many ended Jobs of a repository stay to be looked at
    priorityClassName, podLabels, podAnnotations    in `global` alone, as Velero has it
    verifyFrequency            ours: how often snapshots are read back, 0s for never; Velero leaves it aside
    verifySample               ours: the share of the packs that is read each time, as 5%; all of them in one round
    limitUpload, limitDownload ours: bytes a second that a run sends to the store and fetches from it at most, as 20MiB
    maxRepack                  ours: bytes that one prune moves out of packs that are mostly dead at most, as 10GiB
    runDeadline                ours: after how long a run's Job is ended, as 48h; 0s for never
    fenceAfter                 ours: how long nothing of a session may change before it is judged dead, as 72h

What a repository's own entry says goes before `global`; its annotations `longshore.io/verify-frequency` and
`longshore.io/verify-sample` go before both.

Promises: an entry that cannot be read is an error that names map, entry and field: a Job must not run where its operator forbade it because of a slip.

It does not know Jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import msgspec

from longshore.api.model import JsonObject
from longshore.api.values import Duration, bytes_of_size, fence_after_of, parts_of_share
from longshore.errors import InvalidObjectError, UsageError

__all__ = [
    "ANNOTATION_VERIFY_FREQUENCY",
    "ANNOTATION_VERIFY_SAMPLE",
    "JobSettings",
    "entry_name",
    "read_settings",
    "verify_frequency",
    "verify_parts",
]

ANNOTATION_VERIFY_FREQUENCY: Final = "longshore.io/verify-frequency"
ANNOTATION_VERIFY_SAMPLE: Final = "longshore.io/verify-sample"
_GLOBAL: Final = "global"
_KEEP: Final = 3
_KEEP_MAX: Final = 100
_DEADLINE_SECONDS_MIN: Final = 3600
_DEADLINE_SECONDS_MAX: Final = (1 << 31) - 1
_RESOURCES: Final = {
    "cpuRequest": ("requests", "cpu"),
    "memoryRequest": ("requests", "memory"),
    "ephemeralStorageRequest": ("requests", "ephemeral-storage"),
    "cpuLimit": ("limits", "cpu"),
    "memoryLimit": ("limits", "memory"),
    "ephemeralStorageLimit": ("limits", "ephemeral-storage"),
}
_OPERATORS: Final = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What holds for the runs of one repository."""

    node_terms: tuple[JsonObject, ...] = ()
    """Terms of a node affinity, of which one must fit; empty for the server's own."""
    resources: JsonObject | None = None
    """Requests and limits; None for the server's own."""
    keep: int = _KEEP
    """How many ended Jobs stay."""
    priority_class_name: str = ""
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    verify_frequency: timedelta | None = None
    """None where the map does not say."""
    verify_parts: int | None = None
    """How many verifications read everything once; None where the map does not say."""
    limit_upload: int | None = None
    """Bytes a second that a run sends; None for no limit."""
    limit_download: int | None = None
    """Bytes a second that a run fetches; None for no limit."""
    max_repack: int | None = None
    """Bytes that one prune moves at most; None for no bound."""
    fence_after: int | None = None
    """Seconds without a change, over three prunes, after which a session is judged dead; None for the engine's own."""
    run_deadline: int | None = None
    """Seconds after which a run's Job is ended, 0 for never; None for what is usual for the operation."""
    share: tuple[int, int] | None = None
    """Which part of the packs this very run reads, out of how many; None for all."""


def entry_name(*, namespace: str, location: str, type_: str) -> str:
    """Name a repository's own entry of the map."""
    return f"{namespace}-{location}-{type_}"


def read_settings(data: Mapping[str, Any], *, entry: str, where: str, keep: int = _KEEP) -> JobSettings:
    """Read a config map for one repository.

    Args:
        data: of the map; empty when there is none.
        entry: the repository's own entry, see `entry_name`.
        where: names the map in messages.
        keep: how many Jobs stay where the map does not say.

    Raises:
        UsageError: something in it cannot be understood.
    """
    settings = JobSettings(keep=keep)
    for name in (_GLOBAL, entry):
        if name not in data:
            continue
        place = f"configmap={where}, entry={name}"
        try:
            body = msgspec.json.decode(str(data[name]))
        except msgspec.DecodeError as err:
            raise _refused(place, "the whole", "it is no JSON") from err
        if not isinstance(body, dict):
            raise _refused(place, "the whole", "it is no JSON object")
        settings = _over(settings, body, place=place, is_global=name == _GLOBAL)
    return settings


def verify_frequency(obj: JsonObject, settings: JobSettings, *, default: timedelta) -> timedelta:
    """Tell how often a repository's snapshots are read back; zero for never.

    Raises:
        UsageError: its annotation is no span.
    """
    text = ((obj.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_VERIFY_FREQUENCY)
    if text is None:
        return default if settings.verify_frequency is None else settings.verify_frequency
    try:
        return Duration(str(text)).span
    except InvalidObjectError as err:
        raise _refused(f"annotation={ANNOTATION_VERIFY_FREQUENCY}", "the whole", "it is no span") from err


def verify_parts(obj: JsonObject, settings: JobSettings, *, default: int) -> int:
    """Tell in how many verifications everything is read once; 1 for all of it each time.

    Raises:
        UsageError: its annotation is no share.
    """
    text = ((obj.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_VERIFY_SAMPLE)
    if text is None:
        return default if settings.verify_parts is None else settings.verify_parts
    try:
        return parts_of_share(str(text))
    except InvalidObjectError as err:
        raise _refused(f"annotation={ANNOTATION_VERIFY_SAMPLE}", "the whole", "it is no share such as 5%") from err


def _over(settings: JobSettings, body: dict[str, Any], *, place: str, is_global: bool) -> JobSettings:
    change: dict[str, Any] = {}
    if body.get("loadAffinity"):
        change["node_terms"] = _terms(body["loadAffinity"], place)
    if body.get("podResources"):
        change["resources"] = _resources(body["podResources"], place)
    if (keep := body.get("keepLatestMaintenanceJobs")) is not None:
        if not isinstance(keep, int) or isinstance(keep, bool) or not 0 <= keep <= _KEEP_MAX:
            raise _refused(place, "keepLatestMaintenanceJobs", f"it is no number from 0 to {_KEEP_MAX}")
        change["keep"] = keep
    if (text := body.get("verifyFrequency")) is not None:
        try:
            change["verify_frequency"] = Duration(str(text)).span
        except InvalidObjectError as err:
            raise _refused(place, "verifyFrequency", "it is no span such as 168h") from err
    if (text := body.get("verifySample")) is not None:
        try:
            change["verify_parts"] = parts_of_share(str(text))
        except InvalidObjectError as err:
            raise _refused(place, "verifySample", "it is no share such as 5%") from err
    for name, wanted in (
        ("limitUpload", "limit_upload"),
        ("limitDownload", "limit_download"),
        ("maxRepack", "max_repack"),
    ):
        if (text := body.get(name)) is not None:
            try:
                change[wanted] = bytes_of_size(str(text))
            except InvalidObjectError as err:
                raise _refused(place, name, "it is no size such as 20MiB") from err
    if (text := body.get("fenceAfter")) is not None:
        try:
            change["fence_after"] = fence_after_of(str(text))
        except InvalidObjectError as err:
            raise _refused(place, "fenceAfter", err.message) from err
    if (text := body.get("runDeadline")) is not None:
        change["run_deadline"] = _deadline(text, place)
    if is_global:
        if (text := body.get("priorityClassName")) is not None:
            change["priority_class_name"] = _text(text, place, "priorityClassName")
        for name, wanted in (("podLabels", "pod_labels"), ("podAnnotations", "pod_annotations")):
            if body.get(name):
                change[wanted] = _texts(body[name], place, name)
    return replace(settings, **change)


def _deadline(text: Any, place: str) -> int:
    try:
        seconds = Duration(str(text)).span.total_seconds()
    except InvalidObjectError as err:
        raise _refused(place, "runDeadline", "it is no span such as 48h") from err
    if 0 < seconds < _DEADLINE_SECONDS_MIN:
        raise _refused(place, "runDeadline", "it is shorter than an hour")
    return min(int(seconds), _DEADLINE_SECONDS_MAX)


def _terms(found: Any, place: str) -> tuple[JsonObject, ...]:
    terms: list[JsonObject] = []
    for one in found if isinstance(found, list) else [None]:
        selector = one.get("nodeSelector") if isinstance(one, dict) else None
        if not isinstance(selector, dict):
            raise _refused(place, "loadAffinity", "it is no list of nodeSelectors")
        labels = _texts(selector.get("matchLabels") or {}, place, "loadAffinity.nodeSelector.matchLabels")
        terms_of = [{"key": key, "operator": "In", "values": [value]} for key, value in sorted(labels.items())]
        for each in selector.get("matchExpressions") or []:
            if not isinstance(each, dict) or each.get("operator") not in _OPERATORS or not each.get("key"):
                raise _refused(place, "loadAffinity.nodeSelector.matchExpressions", "key or operator is none")
            values = [_text(value, place, "matchExpressions.values") for value in each.get("values") or []]
            terms_of.append(
                {"key": str(each["key"]), "operator": each["operator"], **({"values": values} if values else {})}
            )
        if terms_of:
            terms.append({"matchExpressions": terms_of})
    return tuple(terms)


def _resources(found: Any, place: str) -> JsonObject:
    if not isinstance(found, dict):
        raise _refused(place, "podResources", "it is no JSON object")
    made: JsonObject = {}
    for name, value in found.items():
        if name not in _RESOURCES:
            raise _refused(place, f"podResources.{name}", "there is no such field")
        kind, what = _RESOURCES[name]
        if text := _text(value, place, f"podResources.{name}"):
            made.setdefault(kind, {})[what] = text
    return made


def _texts(found: Any, place: str, name: str) -> dict[str, str]:
    if not isinstance(found, dict):
        raise _refused(place, name, "it is no JSON object")
    return {str(key): _text(value, place, name) for key, value in found.items()}


def _text(found: Any, place: str, name: str) -> str:
    if not isinstance(found, str):
        raise _refused(place, name, "it is no text")
    return found


def _refused(place: str, name: str, cause: str) -> UsageError:
    return UsageError(
        f"a setting of maintenance cannot be understood: {place}, field={name}, cause={cause}",
        "mend it; until then no maintenance or verification of the repositories that it concerns begins",
    )
