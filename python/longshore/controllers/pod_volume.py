"""The table that PodVolumeBackup and PodVolumeRestore share: phase → what is done next.

=====================  ===================================================================================================
New, Accepted,         cancelled: Canceled. Not ready yet (a restored pod whose container does not wait yet): looked at again.
Prepared               No free place: looked at again. Else claimed (InProgress), and the task begins.
InProgress, Canceling  task at work: progress is written, a cancellation is passed on.
                       task over: its outcome becomes the terminal phase, or it is tried again (the store is away).
                       no task: another instance left it: finished, begun again or given up, once we hold the node's lease.
terminal               another agent's finalizer is taken off; nothing else ever changes.
unknown                a newer agent's; left alone.
New, nobody's          old, and what it names is nowhere: Failed, so that nobody waits for it for ever.
=====================  ===================================================================================================

A handler is handed a name and reads the object afresh; each write carries the version that was read. So lost answers, duplicate events, conflicts and
restarts all come to the same: read, look up the row, act.

Promises: without the node's lease nothing is claimed, begun or ended. An outcome is kept until it is written. A store or an API server that is away fails
nobody before `outage_seconds_max`; meanwhile the message says what is awaited, and an Event has said it once. Every end is told by the status, one Event and
one record of the log, in the same words, a failure as a warning. Deleting an object stops its task and deletes nothing.

It does not know volumes, repositories or containers: its two kinds do.

Over 500 lines because the rows of one table share their steps and what they remember.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Protocol

from longshore.api.model import JsonObject
from longshore.api.pod_volume import PodVolumePhase
from longshore.controllers.claims import (
    ANNOTATION_NODE,
    ATTEMPTS_MAX,
    attempts_of,
    claim_patch,
    instance_of,
    node_of,
    takeover_patch,
)
from longshore.controllers.phases import Ending, bounded, failed, progress_patch, terminal_patch, without_finalizer
from longshore.controllers.tasks import Interruption, Slot, Task, Tasks
from longshore.errors import (
    ApiUnavailableError,
    CancelledError,
    ConflictError,
    InvalidObjectError,
    LongshoreError,
    NotFoundError,
    StoreDeniedError,
)
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.events import EventType
from longshore.kube.resource import Resource, split_key
from longshore.logs import get_logger
from longshore.runtime.controller import Requeue

__all__ = ["AgentContext", "Lease", "Observer", "PodVolumeController", "Recorder", "is_cancelled"]

_log = get_logger(__name__)

_POLL_SECONDS: Final = 3.0
_FULL_SECONDS: Final = 15.0
_NO_LEASE_SECONDS: Final = 5.0
_RETRY_SECONDS_MAX: Final = 60.0
REASON_WAITING: Final = "Waiting"
REASON_FIELDS_DROPPED: Final = "FieldsDropped"


class Lease(Protocol):
    """The node's lease."""

    def is_leader(self) -> bool:
        """Whether we hold it and have time left to act on that."""
        ...


class Recorder(Protocol):
    """Who writes events."""

    def record(self, obj: JsonObject, event_type: EventType, reason: str, message: str) -> None:
        """Record that something happened; returns at once and raises nothing."""
        ...


class Observer(Protocol):
    """Who counts."""

    def claimed(self, kind: str, obj: JsonObject) -> None:
        """Work on an object began."""
        ...

    def ended(self, kind: str, obj: JsonObject, *, phase: str, seconds: float, outcome: Any) -> None:
        """Work on an object ended."""
        ...


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What both kinds need of the process."""

    client: KubeClient
    lease: Lease
    tasks: Tasks
    recorder: Recorder
    observer: Observer
    node: str
    instance: str
    clock: Clock = SYSTEM_CLOCK
    progress_seconds: float = _POLL_SECONDS
    outage_seconds_max: float = 3600.0
    unclaimed_seconds: float = 600.0
    """How old a New object is before it may be taken for nobody's."""
    renew_credentials: Callable[[], int] = lambda: 0
    """Looks for rotated credentials and tells how many were found: asked when a store refuses the present ones."""


@dataclass(slots=True)
class _Outage:
    """What is known of an object whose store or API server is away."""

    since: float
    tries: int = 0
    again_at: float = 0.0
    told: str = ""
    """The kind of cause of which an Event was written."""


@dataclass(slots=True)
class _Memory:
    """What is kept of an object between two looks; losing it costs a repeated look, never more."""

    uid: str
    outage: _Outage | None = None
    claimed_here: bool = False
    """Whether this instance made the claim while nobody else had: then no earlier snapshot can exist."""
    plan: Any = field(default=None)


class PodVolumeController(abc.ABC):
    """One of the two kinds; see the module's text."""

    kind: ClassVar[str]
    resource: ClassVar[Resource]
    verb: ClassVar[str]
    """What is done to a volume, for messages."""

    def __init__(self, context: AgentContext, *, enqueue: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            enqueue: has a key looked at soon.
        """
        self.context: Final = context
        self._enqueue = enqueue
        self._memory: dict[str, _Memory] = {}
        self._told_of_definitions = False
        p = PodVolumePhase
        self._rows: Final = {
            p.NEW: self._fresh,
            p.ACCEPTED: self._fresh,
            p.PREPARED: self._fresh,
            p.IN_PROGRESS: self._under_way,
            p.CANCELING: self._under_way,
            p.COMPLETED: self.final,
            p.FAILED: self.final,
            p.CANCELED: self.final,
        }

    # -- what a kind adds ------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def is_ours(self, obj: JsonObject) -> bool:
        """Whether this node's agent is to act on it; must bear any nonsense."""

    @abc.abstractmethod
    def parse(self, obj: JsonObject) -> Any:
        """Read the object.

        Raises:
            UsageError: a field holds nonsense.
        """

    @abc.abstractmethod
    def may_claim(self, parsed: Any) -> Requeue | Ending | None:
        """Whether work on a fresh object may begin: None for yes, when to look again, or how it ends without any work."""

    @abc.abstractmethod
    def plan(self, parsed: Any, *, claimed_here: bool) -> Any:
        """Find out what the work needs of the cluster; an Ending when there is nothing to do.

        Raises:
            LongshoreError: a retryable one is tried again; any other fails the object.
        """

    @abc.abstractmethod
    def work(self, task: Task, plan: Any) -> Any:
        """Do the work, in the task's thread; what it returns goes to `ending`."""

    @abc.abstractmethod
    def ending(self, obj: JsonObject, outcome: Any) -> Ending:
        """Say how the object ends with that outcome. May write to the object's metadata first."""

    def unclaimed(self, obj: JsonObject) -> Ending | None:  # noqa: ARG002 - for kinds that name no node
        """Say how a New object that is not ours ends when it is nobody's; None to leave it alone. Must bear any nonsense."""
        return None

    def final(self, obj: JsonObject) -> Requeue | None:
        """Look at an object that has ended."""
        metadata = without_finalizer(obj)
        if metadata is not None and self.context.lease.is_leader():
            self.patch(obj, {"metadata": metadata})
        return None

    # -- the loop --------------------------------------------------------------------------------------------------------------

    def sync(self, key: str) -> Requeue | None:
        """Look at one object and do what its row says."""
        namespace, name = split_key(key)
        task = self.context.tasks.get(self.kind, key)
        try:
            obj = self.context.client.get(self.resource, name, namespace=namespace)
        except NotFoundError:
            self._gone(key, task)
            return None
        uid = str(obj["metadata"].get("uid", ""))
        if task is not None and task.uid != uid:
            self._gone(key, task)
            return Requeue(1.0) if self.context.tasks.get(self.kind, key) else self.sync(key)
        phase = PodVolumePhase.of(_phase_text(obj))
        row = self._rows.get(phase) if isinstance(phase, PodVolumePhase) else None
        if row is None:
            _log.info("Left an object of an unknown phase alone", kind=self.kind, key=key, phase=str(phase))
            return None
        if isinstance(phase, PodVolumePhase) and phase.is_terminal:
            # Somebody else ended it (a server's timeout, an operator): whatever still runs is for nothing.
            if task is not None:
                self._gone(key, task)
            return self.final(obj) if self.is_ours(obj) else None
        if task is None and not self.is_ours(obj):
            if phase is PodVolumePhase.NEW and self.context.lease.is_leader() and (ending := self.unclaimed(obj)):
                return self._end(obj, ending)
            return None
        return row(obj)

    def keys(self) -> list[str]:
        """The keys of which something is remembered; for sweeps."""
        return [*self._memory]

    # -- rows ------------------------------------------------------------------------------------------------------------------

    def _fresh(self, obj: JsonObject) -> Requeue | None:
        context = self.context
        if not context.lease.is_leader():
            return Requeue(_NO_LEASE_SECONDS)
        if is_cancelled(obj):
            return self._end(obj, Ending(PodVolumePhase.CANCELED, "cancelled before any work began"))
        try:
            parsed = self.parse(obj)
            wanted = self.may_claim(parsed)
        except Exception as err:
            if isinstance(err, LongshoreError) and err.retryable:
                raise
            return self._end(obj, failed(err, doing=self._doing(obj)))
        if isinstance(wanted, Requeue):
            return wanted
        if isinstance(wanted, Ending):
            return self._end(obj, wanted)
        slot = self._reserve(obj)
        if slot is None:
            return Requeue(_FULL_SECONDS)
        try:
            claimed = self.patch(
                obj, claim_patch(node=context.node, instance=context.instance, now=context.clock.now())
            )
            self._remember(claimed).claimed_here = True
            _log.info("Claimed object", kind=self.kind, key=_key(obj), instance=context.instance)
            self._tell_of_definitions(claimed)
            context.observer.claimed(self.kind, claimed)
            return self._begin(claimed, slot)
        finally:
            slot.release()

    def _under_way(self, obj: JsonObject) -> Requeue | None:
        context = self.context
        task = context.tasks.get(self.kind, _key(obj))
        if task is None:
            return self._without_task(obj)
        if instance_of(obj) != context.instance:
            # Another instance holds it now; ours was slow to learn that it lost the lease.
            self._gone(_key(obj), task)
            return Requeue(1.0)
        if task.is_over:
            return self._over(obj, task)
        if is_cancelled(obj):
            task.interrupt(Interruption.CANCEL)
            if _phase_text(obj) != PodVolumePhase.CANCELING and context.lease.is_leader():
                # Definitions of Velero up to 1.16 do not know this phase: then the end alone is told.
                with contextlib.suppress(InvalidObjectError):
                    self.patch(obj, {"status": {"phase": str(PodVolumePhase.CANCELING)}})
        elif context.lease.is_leader():
            self._report(obj, task)
        return Requeue(context.progress_seconds)

    def _without_task(self, obj: JsonObject) -> Requeue | None:
        context = self.context
        if not context.lease.is_leader():
            return Requeue(_NO_LEASE_SECONDS)
        memory = self._remember(obj)
        if is_cancelled(obj):
            return self._end(obj, Ending(PodVolumePhase.CANCELED, "cancelled"))
        wait = 0.0 if memory.outage is None else memory.outage.again_at - context.clock.monotonic()
        if wait > 0.0:
            return Requeue(wait)
        if instance_of(obj) != context.instance and attempts_of(obj) >= ATTEMPTS_MAX:
            cause = f"the agent ended again and again while it worked on this: attempts={attempts_of(obj)}"
            step = (
                "look at the end of the agent's previous log and at its memory limit, then try again with a new object"
            )
            return self._end(obj, failed(LongshoreError(cause, step), doing=self._doing(obj)))
        slot = self._reserve(obj)
        if slot is None:
            return Requeue(_FULL_SECONDS)
        try:
            if instance_of(obj) != context.instance:
                _log.info("Took over object", kind=self.kind, key=_key(obj), before=instance_of(obj))
                now = context.clock.now()
                obj = self.patch(obj, takeover_patch(obj, node=context.node, instance=context.instance, now=now))
                context.observer.claimed(self.kind, obj)
            return self._begin(obj, slot)
        finally:
            slot.release()

    def _begin(self, obj: JsonObject, slot: Slot) -> Requeue | None:
        key = _key(obj)
        memory = self._remember(obj)
        try:
            plan = self.plan(self.parse(obj), claimed_here=memory.claimed_here)
        except Exception as err:
            if isinstance(err, ConflictError):
                raise
            if isinstance(err, LongshoreError) and err.retryable:
                return self._retry(obj, err)
            return self._end(obj, failed(err, doing=self._doing(obj)))
        if isinstance(plan, Ending):
            return self._end(obj, plan)
        task = slot.start(uid=memory.uid, work=lambda task: self.work(task, plan), on_end=lambda: self._enqueue(key))
        if not self.context.lease.is_leader():
            # Lost while this was planned: whoever told all tasks to stop had not seen this one.
            task.interrupt(Interruption.LEASE)
        # From now on an earlier attempt of our own may have left a snapshot.
        memory.claimed_here = False
        return Requeue(self.context.progress_seconds)

    def _over(self, obj: JsonObject, task: Task) -> Requeue | None:
        context = self.context
        key = _key(obj)
        error = task.error
        silent = task.interruption is not None and task.interruption.is_silent
        if silent and isinstance(error, CancelledError):
            # Nothing is written: whoever holds the lease next, perhaps we, begins again.
            context.tasks.drop(self.kind, key)
            return Requeue(_NO_LEASE_SECONDS)
        if not context.lease.is_leader():
            return Requeue(_NO_LEASE_SECONDS)
        if error is None:
            ending = self.ending(obj, task.result)
            return self._end(obj, ending, task=task)
        if isinstance(error, CancelledError):
            if is_cancelled(obj):
                return self._end(obj, Ending(PodVolumePhase.CANCELED, "cancelled"), task=task)
            context.tasks.drop(self.kind, key)
            return Requeue(0.0)
        if isinstance(error, LongshoreError) and not is_cancelled(obj):
            rotated = isinstance(error, StoreDeniedError) and context.renew_credentials() > 0
            if error.retryable or rotated:
                return self._retry(obj, error)
        if is_cancelled(obj):
            return self._end(obj, Ending(PodVolumePhase.CANCELED, f"cancelled; before that: {error}"), task=task)
        return self._end(obj, failed(error, doing=self._doing(obj)), task=task)

    # -- steps -----------------------------------------------------------------------------------------------------------------

    def _tell_of_definitions(self, claimed: JsonObject) -> None:
        """Say once that what was just written did not stay: the cluster's definitions are older than this agent, or another product's."""
        status = claimed.get("status")
        kept = status if isinstance(status, dict) else {}
        dropped = [name for name in ("node", "instance") if not kept.get(name)]
        if self._told_of_definitions or not dropped:
            return
        self._told_of_definitions = True
        step = "the work is done all the same; to see them apply the definitions of this version: kubectl apply --server-side -f daemonset/crds"
        fields = ", ".join(f"status.{name}" for name in dropped)
        _log.info("Definitions of the cluster drop fields", kind=self.kind, fields=fields, next_step=step)
        text = f"the cluster's definition of {self.kind} drops fields: fields=[{fields}]; {step}"
        self.context.recorder.record(claimed, EventType.NORMAL, REASON_FIELDS_DROPPED, text)

    def _retry(self, obj: JsonObject, error: LongshoreError) -> Requeue | None:
        """Bear an outage: say what is awaited, and when it is tried again."""
        context = self.context
        memory = self._remember(obj)
        now = context.clock.monotonic()
        outage = memory.outage
        if outage is None:
            outage = memory.outage = _Outage(since=now)
        outage.tries += 1
        if now - outage.since >= context.outage_seconds_max:
            ending = failed(
                error, doing=f"{self._doing(obj)}: given up after {outage.tries} tries in {now - outage.since:.0f} s"
            )
            return self._end(obj, ending, task=context.tasks.get(self.kind, _key(obj)))
        wait = min(_RETRY_SECONDS_MAX, 1.0 * 2.0 ** min(outage.tries, 10))
        outage.again_at = now + wait
        awaited = f"waiting, nothing is lost yet: {error.told()}"
        message = bounded(f"{awaited}; tries={outage.tries}")
        if outage.told != error.code:
            outage.told = error.code
            context.recorder.record(obj, EventType.WARNING, REASON_WAITING, bounded(awaited))
        _log.warning("Work is tried again", kind=self.kind, key=_key(obj), error=error, again_in_seconds=wait)
        if (obj.get("status") or {}).get("message") != message:
            try:
                self.patch(obj, {"status": {"message": message}})
            except (ConflictError, ApiUnavailableError):
                # Only a word to the operator; the next try has another.
                _log.debug("Message was not written", kind=self.kind, key=_key(obj))
        context.tasks.drop(self.kind, _key(obj))
        return Requeue(wait)

    def _report(self, obj: JsonObject, task: Task) -> None:
        context = self.context
        progress = task.progress()
        now = context.clock.monotonic()
        if progress is None or now - task.reported_at < context.progress_seconds * 0.9:
            return
        state = (progress.bytes_done, progress.files_done)
        if state == task.reported:
            return
        status: JsonObject = {"progress": progress_patch(progress, seconds=now - task.began_at)}
        if (obj.get("status") or {}).get("message"):
            status["message"] = ""
        self.patch(obj, {"status": status})
        task.reported, task.reported_at = state, now
        memory = self._memory.get(_key(obj))
        if memory is not None and task.reported != (0, 0):
            # It moves again: the next outage has its own time.
            memory.outage = None

    def _end(self, obj: JsonObject, ending: Ending, *, task: Task | None = None) -> Requeue | None:
        context = self.context
        key = _key(obj)
        bad = ending.phase is PodVolumePhase.FAILED
        try:
            written = self.patch(obj, self._terminal(obj, ending))
        except InvalidObjectError:
            if ending.phase is not PodVolumePhase.CANCELED:
                raise
            # Nor this one, and an object that cannot end would hold up its own deletion. It was asked for all the same, and warns nobody.
            ending = replace(ending, phase=PodVolumePhase.FAILED)
            written = self.patch(obj, self._terminal(obj, ending))
        context.tasks.drop(self.kind, key)
        self._memory.pop(key, None)
        seconds = 0.0 if task is None else context.clock.monotonic() - task.began_at
        tell = _log.warning if bad else _log.info
        tell("Ended object", kind=self.kind, key=key, phase=str(ending.phase), reason=bounded(ending.message))
        context.recorder.record(
            written,
            EventType.WARNING if bad else EventType.NORMAL,
            str(ending.phase),
            bounded(ending.message) or f"{self.kind} ended: phase={ending.phase}",
        )
        outcome = None if task is None else task.result
        context.observer.ended(self.kind, written, phase=str(ending.phase), seconds=seconds, outcome=outcome)
        return self.final(written)

    def _terminal(self, obj: JsonObject, ending: Ending) -> JsonObject:
        # The node stands in every object that we end, also where no work was begun: the admission policy lets us write no other.
        change = terminal_patch(obj, ending, now=self.context.clock.now())
        change["status"].setdefault("node", self.context.node)
        if not node_of(obj):
            # Where definitions drop the status's, the policy asks for this one.
            metadata = change.setdefault("metadata", {})
            metadata["annotations"] = {**metadata.get("annotations", {}), ANNOTATION_NODE: self.context.node}
        return change

    def _gone(self, key: str, task: Task | None) -> None:
        if task is None:
            self._memory.pop(key, None)
            return
        task.interrupt(Interruption.DELETED)
        if task.is_over:
            self.context.tasks.drop(self.kind, key)
            self._memory.pop(key, None)

    def _reserve(self, obj: JsonObject) -> Slot | None:
        key = _key(obj)
        return self.context.tasks.reserve(self.kind, key, wake=lambda: self._enqueue(key))

    def _remember(self, obj: JsonObject) -> _Memory:
        key, uid = _key(obj), str(obj["metadata"].get("uid", ""))
        memory = self._memory.get(key)
        if memory is None or memory.uid != uid:
            memory = self._memory[key] = _Memory(uid)
        return memory

    def _doing(self, obj: JsonObject) -> str:
        spec = obj.get("spec")
        pod = spec.get("pod") if isinstance(spec, dict) else None
        where = f"{pod.get('namespace')}/{pod.get('name')}" if isinstance(pod, dict) else "unknown"
        volume = spec.get("volume") if isinstance(spec, dict) else None
        return f"{self.verb} volume {volume} of pod {where}"

    def patch(self, obj: JsonObject, change: JsonObject) -> JsonObject:
        """Write a change if the object still is what was read.

        Raises:
            ConflictError: it is not; the key is looked at again.
        """
        metadata = obj["metadata"]
        return self.context.client.patch(
            self.resource,
            metadata["name"],
            change,
            namespace=metadata.get("namespace"),
            resource_version=metadata["resourceVersion"],
        )


def _key(obj: JsonObject) -> str:
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def _phase_text(obj: JsonObject) -> str:
    status = obj.get("status")
    phase = status.get("phase") if isinstance(status, dict) else ""
    return phase if isinstance(phase, str) else ""


def is_cancelled(obj: JsonObject) -> bool:
    """Whether somebody has asked for its end, by cancelling or by deleting it."""
    spec = obj.get("spec")
    asked = isinstance(spec, dict) and spec.get("cancel") is True
    return asked or (obj.get("metadata") or {}).get("deletionTimestamp") is not None
