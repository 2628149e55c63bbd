"""Is everything safe? One answer for each volume of the cluster, from the cluster's objects alone, and one for the installation.

A volume is *safe* when its last success is young enough and nothing failed since. Everything else is named with the reason: *failing* (the newest backup that
ended did not succeed), *stale*, *never* (nothing backs it up), *left out* (it cannot be, or somebody said so). Volumes that Kubernetes fills by itself hold
nothing of their own and are not listed; an emptyDir is scratch space unless somebody backs it up, so those that nobody does are only counted. A folder of the
node that a pod mounts is left out, and marked as the node's: each agent of a cluster's network and storage has several on every node.

Promises: what could not be looked at is said and is never counted as safe; the store is not asked. A success that is dated in the future is not safe, for
nobody knows how old it is. Of an agent that does not run the node and the reason are told.

It does not know how it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

from longshore.api.core import PersistentVolume, PersistentVolumeClaim, Pod, Volume
from longshore.api.model import JsonObject
from longshore.api.names import BACKUP_REPOSITORIES, BACKUP_STORAGE_LOCATIONS, POD_VOLUME_BACKUPS
from longshore.api.repository import CONDITION_RECOVERY_KEY_MISSING
from longshore.controllers.cluster import resource_of
from longshore.controllers.maintenance.shown import FAILED_CONDITIONS
from longshore.controllers.volume_history import VolumeHistory, VolumeKey, histories
from longshore.errors import ApiDeniedError, LongshoreError, NotFoundError, UnsupportedError
from longshore.kube.client import KubeClient
from longshore.kube.resource import (
    DAEMON_SETS,
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    Resource,
)
from longshore.volumes import check_supported, claim_name_of, filled_by_kubernetes

__all__ = ["Part", "Row", "State", "Survey", "judge", "look", "look_at_installation", "why_not_ready"]

_RISKS: Final = frozenset({CONDITION_RECOVERY_KEY_MISSING, *FAILED_CONDITIONS.values()})
_LAST: Final = {"lastMaintenanceTime": "maintained", "lastVerificationTime": "verified"}
EXCLUDED: Final = "backup.velero.io/backup-volumes-excludes"
_CLOCKS_APART_SECONDS: Final = 300.0
"""A success may lie so far in the future: nobody's clock is exact."""
_PODS_NAMED_MAX: Final = 5
_TEXT_CHARS_MAX: Final = 300
_NO_LOCATION: Final = "there is none, so backups have no place to go: make one, or say longshore install with --bucket"
_FOREIGN: Final = ("exec format error", "no match for platform")


class State(StrEnum):
    """What is said of a volume."""

    SAFE = "safe"
    FAILING = "failing"
    STALE = "stale"
    NEVER = "never"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One volume."""

    namespace: str
    claim: str
    pod: str
    volume: str
    state: State
    reason: str = ""
    succeeded_at: datetime | None = None
    age_seconds: float | None = None
    size_bytes: int = 0
    snapshot_id: str = ""
    backup: str = ""
    """The object of the last success."""
    failed_backup: str = ""
    """Of a volume that is failing: the object that failed."""
    running: bool = False
    of_node: bool = False
    """A folder of the node (hostPath) that nobody has tried to back up."""


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the installation."""

    kind: str
    name: str
    ok: bool
    text: str


@dataclass(slots=True)
class Survey:
    """The whole answer."""

    rows: list[Row] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    scratch: int = 0
    """emptyDir volumes that nobody backs up."""
    blind: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""

    @property
    def is_safe(self) -> bool:
        """Whether nothing needs anybody; a volume that was left out on purpose needs nobody."""
        fine = {State.SAFE, State.LEFT_OUT}
        return not self.blind and all(part.ok for part in self.parts) and all(row.state in fine for row in self.rows)


def look(client: KubeClient, *, namespace: str, only: frozenset[str], now: datetime, stale_seconds: float) -> Survey:
    """Look at the whole cluster.

    Args:
        namespace: where Longshore is installed.
        only: namespaces whose volumes are judged; empty for all.
        stale_seconds: how old a success may be.
    """
    survey = look_at_installation(client, namespace=namespace)
    listed: dict[str, list[JsonObject]] = {}
    wanted: tuple[tuple[str, Resource, str | None], ...] = (
        ("pods", PODS, None),
        ("claims", PERSISTENT_VOLUME_CLAIMS, None),
        ("volumes", PERSISTENT_VOLUMES, None),
        ("backups", resource_of(POD_VOLUME_BACKUPS), namespace),
    )
    for name, resource, where in wanted:
        listed[name] = _list(client, resource, namespace=where, blind=survey.blind)
    judge(survey, listed, only=only, now=now, stale_seconds=stale_seconds)
    return survey


def look_at_installation(client: KubeClient, *, namespace: str) -> Survey:
    """Look at agents, server, locations and repositories."""
    survey = Survey()
    for resource, name, needed in ((DAEMON_SETS, "node-agent", True), (DEPLOYMENTS, "longshore-server", False)):
        try:
            workload = client.get(resource, name, namespace=namespace)
            part = _workload(workload, resource.kind)
            survey.parts.append(part if part.ok else _explained(part, client, workload))
        except NotFoundError:
            if needed:
                survey.parts.append(Part(resource.kind, name, ok=False, text="it is not there: say longshore install"))
        except ApiDeniedError as err:
            survey.blind.append(err.text())
    for definition in (BACKUP_STORAGE_LOCATIONS, BACKUP_REPOSITORIES):
        resource = resource_of(definition)
        good = "Available" if definition is BACKUP_STORAGE_LOCATIONS else "Ready"
        found = _list(client, resource, namespace=namespace, blind=survey.blind)
        if definition is BACKUP_STORAGE_LOCATIONS and not found and not survey.blind:
            survey.parts.append(Part(resource.kind, "", ok=False, text=_NO_LOCATION))
        survey.parts += [_phased(one, resource.kind, good) for one in found]
    return survey


def judge(
    survey: Survey, listed: dict[str, list[JsonObject]], *, only: frozenset[str], now: datetime, stale_seconds: float
) -> None:
    """Judge volumes.

    Args:
        survey: gets the rows.
        listed: `pods`, `claims`, `volumes` and `backups` as the API server gave them.
    """
    known = histories(listed["backups"])
    read = partial(_read, blind=survey.blind)
    claims = {(one.metadata.namespace, one.metadata.name): one for one in read(PersistentVolumeClaim, listed["claims"])}
    volumes = {one.metadata.name: one for one in read(PersistentVolume, listed["volumes"])}
    seen: set[tuple[str, str]] = set()
    for pod in read(Pod, listed["pods"]):
        namespace = pod.metadata.namespace
        if pod.status.phase in {"Succeeded", "Failed"} or (only and namespace not in only):
            continue
        for volume in pod.spec.volumes:
            name = claim_name_of(pod, volume)
            if name is not None:
                if (namespace, name) in seen:
                    continue
                seen.add((namespace, name))
            claim = None if name is None else claims.get((namespace, name))
            bound = volumes.get(claim.spec.volume_name) if claim is not None else None
            row = _judge(pod, volume, name or "", claim, bound, known, now=now, stale_seconds=stale_seconds)
            if row is None:
                survey.scratch += volume.empty_dir is not None
            else:
                survey.rows.append(row)
    for (namespace, name), claim in claims.items():
        if (namespace, name) not in seen and (not only or namespace in only):
            survey.rows.append(_unused(claim, known, now=now, stale_seconds=stale_seconds))
    survey.rows.sort(key=lambda row: (row.namespace, row.claim, row.pod, row.volume))


def _judge(
    pod: Pod,
    volume: Volume,
    claim_name: str,
    claim: PersistentVolumeClaim | None,
    bound: PersistentVolume | None,
    known: dict[VolumeKey, VolumeHistory],
    *,
    now: datetime,
    stale_seconds: float,
) -> Row | None:
    """Judge one volume of a pod; None for one that is not listed."""
    if filled_by_kubernetes(volume):
        return None
    metadata = pod.metadata
    history = _best(
        known.get(VolumeKey(metadata.namespace, claim_uid=claim.metadata.uid)) if claim is not None else None,
        known.get(VolumeKey(metadata.namespace, pod=metadata.name, volume=volume.name)),
    )
    row = partial(Row, namespace=metadata.namespace, claim=claim_name, pod=metadata.name, volume=volume.name)
    if history is not None:
        return _told(row, history, now=now, stale_seconds=stale_seconds)
    try:
        check_supported(pod, volume, claim=claim, pv=bound)
    except UnsupportedError as err:
        return row(state=State.LEFT_OUT, reason=err.message, of_node=volume.host_path is not None)
    if volume.name in {one.strip() for one in metadata.annotations.get(EXCLUDED, "").split(",")}:
        return row(state=State.LEFT_OUT, reason=f"the pod says so: annotation={EXCLUDED}")
    if volume.empty_dir is not None:
        return None
    return row(state=State.NEVER, reason="no backup of it is known here: include it in a schedule")


def _best(*found: VolumeHistory | None) -> VolumeHistory | None:
    """The one with the newest success, or any."""
    there = [one for one in found if one is not None]
    return max(there, key=lambda one: one.succeeded_at.timestamp() if one.succeeded_at else 0.0, default=None)


def _told(row: Callable[..., Row], history: VolumeHistory, *, now: datetime, stale_seconds: float) -> Row:
    age = None if history.succeeded_at is None else (now - history.succeeded_at).total_seconds()
    state, reason = State.SAFE, ""
    if history.failed_at is not None:
        state, reason = State.FAILING, history.message or "the newest backup failed and says nothing"
    elif age is None:
        waits = "waits for an agent" if history.working_since is None else "is at work"
        state, reason = State.NEVER, f"its first backup {waits}"
    elif age > stale_seconds:
        state, reason = State.STALE, "no newer backup succeeded: see whether its schedule runs"
    elif age < -_CLOCKS_APART_SECONDS:
        # How old it is nobody knows, and it would count as young until that day comes.
        state, reason = State.STALE, f"its last success is dated in the future: set the clock, node={history.node}"
    return row(
        state=state,
        reason=reason,
        succeeded_at=history.succeeded_at,
        age_seconds=age,
        size_bytes=history.size_bytes,
        snapshot_id=history.snapshot_id,
        backup=history.backup,
        failed_backup=history.failed_backup if state is State.FAILING else "",
        running=history.working_since is not None,
    )


def _unused(
    claim: PersistentVolumeClaim, known: dict[VolumeKey, VolumeHistory], *, now: datetime, stale_seconds: float
) -> Row:
    metadata = claim.metadata
    row = partial(Row, namespace=metadata.namespace, claim=metadata.name, pod="", volume="")
    history = known.get(VolumeKey(metadata.namespace, claim_uid=metadata.uid))
    if history is None:
        return row(state=State.NEVER, reason="no running pod mounts it, and only then can it be backed up")
    return _told(row, history, now=now, stale_seconds=stale_seconds)


def _read(model: Any, found: Iterable[JsonObject], *, blind: list[str]) -> Iterator[Any]:
    for one in found:
        try:
            yield model.from_dict(one)
        except LongshoreError as err:
            metadata = one.get("metadata")
            names = metadata if isinstance(metadata, dict) else {}
            key = f"{names.get('namespace') or ''}/{names.get('name') or ''}"
            blind.append(f"a {model.__name__} cannot be understood: key={key}, error={err.text()}")


def _list(client: KubeClient, resource: Resource, *, namespace: str | None, blind: list[str]) -> list[JsonObject]:
    try:
        return client.list(resource, namespace=namespace).items
    except (ApiDeniedError, NotFoundError) as err:
        blind.append(err.text())
        return []


def _workload(obj: JsonObject, kind: str) -> Part:
    status, name = obj.get("status") or {}, obj["metadata"]["name"]
    if kind == "DaemonSet":
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    else:
        wanted, ready = (obj.get("spec") or {}).get("replicas", 1), status.get("readyReplicas", 0)
    current = status.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
    text = f"{ready} of {wanted} ready" + ("" if current else ", not yet looked at by the cluster")
    return Part(kind, name, ok=current and ready >= wanted > 0, text=text)


def _explained(part: Part, client: KubeClient, obj: JsonObject) -> Part:
    """Add which pods do not run, where and why, as far as pods may be looked at."""
    chosen = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{name}={value}" for name, value in sorted(chosen.items()))
    try:
        pods = client.list(PODS, namespace=obj["metadata"]["namespace"], label_selector=selector).items
    except (ApiDeniedError, NotFoundError):
        return part
    idle = [
        f"{(pod.get('spec') or {}).get('nodeName') or pod['metadata']['name']}: {why}"
        for pod in sorted(pods, key=lambda one: str(one["metadata"]["name"]))
        if (why := why_not_ready(pod))
    ]
    missing = (obj.get("status") or {}).get("desiredNumberScheduled", 0) - len(pods)
    if missing > 0:
        name = obj["metadata"]["name"]
        idle.append(f"no pod on {missing} of the nodes: see kubectl describe daemonset {name}")
    if len(idle) > _PODS_NAMED_MAX:
        idle[_PODS_NAMED_MAX:] = [f"and {len(idle) - _PODS_NAMED_MAX} more"]
    return replace(part, text="; ".join([part.text, *idle]))


def why_not_ready(pod: JsonObject) -> str:
    """Say why a pod is not ready; empty when it is.

    A container that ends again and again waits for its next start with a message about waiting; why it ended is what is told then.
    """
    status = pod.get("status") or {}
    conditions = {one.get("type"): one for one in status.get("conditions") or []}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return ""
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state, last = one.get("state") or {}, one.get("lastState") or {}
        ended = state.get("terminated") or last.get("terminated")
        if ended and not one.get("ready"):
            said = str(ended.get("message") or "").strip().rpartition("\n")[2]
            return _shown(f"ended with {ended.get('reason') or 'no reason'}, exit_code={ended.get('exitCode')}", said)
        if waiting := state.get("waiting"):
            return _shown(str(waiting.get("reason") or "waits"), str(waiting.get("message") or ""))
        if "running" in state and not one.get("ready"):
            return f"it runs and is not ready: see kubectl logs {pod['metadata']['name']}"
    for name in ("PodScheduled", "Ready"):
        one = conditions.get(name) or {}
        if one.get("status") == "False" and one.get("message"):
            return _shown(str(one.get("reason") or "not ready"), str(one["message"]))
    return "it has not begun"


def _shown(reason: str, said: str) -> str:
    advice = (
        "the image is for another processor: name one that has this node's"
        if any(one in said for one in _FOREIGN)
        else ""
    )
    text = said if len(said) <= _TEXT_CHARS_MAX else f"{said[:_TEXT_CHARS_MAX]}…"
    return ": ".join(part for part in (reason, text, advice) if part)


def _phased(obj: JsonObject, kind: str, good: str) -> Part:
    status = obj.get("status") or {}
    phase, message = str(status.get("phase") or "New"), str(status.get("message") or "")
    risks = [
        str(one.get("message") or one.get("type"))
        for one in status.get("conditions") or []
        if one.get("type") in _RISKS and one.get("status") == "True"
    ]
    # What failed stands in the message already, whole.
    told = [one for one in risks if one not in message]
    last = [f"{word} {status[name]}" for name, word in _LAST.items() if status.get(name)]
    said = [phase, *([message] if message else []), *told, *last]
    return Part(kind, obj["metadata"]["name"], ok=phase == good and not risks, text="; ".join(said))
