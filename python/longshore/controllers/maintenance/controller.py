"""Maintenance and verification of repositories by schedule, in the server: begins what is due, watches what runs, records what came of it.

A repository is served through one object: where several stand for the same repository (a BackupRepository and a ResticRepository, or two types), the eldest
BackupRepository is the keeper, and the others show what it shows.

- *Due*: `spec.maintenanceFrequency` after the last success, or after the object was made; verification by a frequency of its own. After a failure it is tried
  again in a quarter of an hour, then after twice that and so on up to six hours. A repository that is not ready waits; one at a ReadOnly location is only read.
- *One run at a time* for a repository, and not more than a few in the cluster. A run that works is adopted, whoever began it and for whichever object; a new
  keeper goes on with the ledger of the one before.
- *Recorded exactly once*: result, times and message go into the status in the same conflict-checked write that counts the run in the ledger.
- *A run that does not start* (no node, no image) counts as failed after ten minutes, with the reason, and its Job is removed; so does one that its deadline did
  not end, because its node is gone.
- *Told*: conditions MaintenanceDue, MaintenanceFailed and VerificationFailed, an Event when a failure is new and when it is over, metrics at every look.

It does not know Jobs or threads (:mod:`.runs`), nor what a run does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from longshore.api.meta import ConditionStatus
from longshore.api.model import JsonObject
from longshore.api.repository import BackupRepository, MaintenanceResult, RepositoryPhase, ResticRepository
from longshore.controllers.cluster import ClusterReader, resource_of
from longshore.controllers.conditions import condition, conditions_of, merged
from longshore.controllers.maintenance.keeper import Keepers
from longshore.controllers.maintenance.ledger import ANNOTATION_LEDGER, Ledger, Operation, Outcome, next_due
from longshore.controllers.maintenance.patience import Patience
from longshore.controllers.maintenance.runs import Run, Runner, RunState
from longshore.controllers.maintenance.settings import JobSettings, verify_frequency, verify_parts
from longshore.controllers.maintenance.shared import MaintenanceSettings, Places, SettingsReader
from longshore.controllers.maintenance.shown import (
    CONDITION_DUE,
    FAILED_CONDITIONS,
    LAST,
    LISTS,
    mark_of,
    name_of,
    reason_of,
    spec_of,
    status_of,
    time_of,
    trouble_of,
)
from longshore.controllers.phases import bounded
from longshore.controllers.pod_volume import Lease, Recorder
from longshore.errors import (
    ApiDeniedError,
    ConflictError,
    InvalidObjectError,
    LongshoreError,
    NotFoundError,
    UsageError,
)
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock, format_time
from longshore.kube.events import EventType
from longshore.kube.resource import Resource, split_key
from longshore.logs import get_logger
from longshore.metrics import ServerMetrics
from longshore.runtime.controller import Requeue

__all__ = ["MaintenanceController"]

_log = get_logger(__name__)

_RECENT_MAX: Final = 10
_NO_REPORT: Final = "the run left no report; see what its Job says with kubectl describe job"
_NO_LEASE_SECONDS: Final = 5.0
_RUN_SECONDS: Final = 10.0
_PLACE_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 300.0
_LOOK_SECONDS_MIN: Final = 1.0
_READ_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Plan:
    """When one operation is due."""

    operation: Operation
    due: datetime | None
    begin: datetime | None
    """Later than due while a failure is waited out."""


class MaintenanceController:
    """Serves one of the two kinds; see the module's text."""

    def __init__(
        self,
        model: type[BackupRepository | ResticRepository],
        client: KubeClient,
        *,
        cluster: ClusterReader,
        runner: Runner | None,
        settings: MaintenanceSettings,
        reader: SettingsReader,
        places: Places,
        peers: Callable[[], Iterable[JsonObject]],
        lease: Lease,
        recorder: Recorder,
        metrics: ServerMetrics,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare.

        Args:
            model: which of the two kinds.
            runner: where runs take place; None to begin none and only tell what is due.
            peers: all repository objects of both kinds as they are known now.
        """
        self.kind: Final = model.definition.kind
        self.resource: Final[Resource] = resource_of(model.definition)
        self._model = model
        self._client = client
        self._cluster = cluster
        self._runner = runner
        self._settings = settings
        self._reader = reader
        self._places = places
        self._keepers = Keepers(client, peers=peers)
        self._lease = lease
        self._recorder = recorder
        self._metrics = metrics
        self._clock = clock
        self._looked: set[str] = set()
        """UIDs whose runs were looked at by this process and of which none works."""
        self._patience = Patience(start_seconds=settings.start_seconds, clock=clock)
        self._uids: dict[str, str] = {}
        self._written: dict[str, JsonObject] = {}
        """UID → what was last written only to be shown."""

    def sync(self, key: str) -> Requeue | None:
        """Look at one repository: record, begin, or wait."""
        if not self._lease.is_leader():
            self._looked.clear()
            return Requeue(_NO_LEASE_SECONDS)
        namespace, name = split_key(key)
        try:
            obj = self._client.get(self.resource, name, namespace=namespace)
        except NotFoundError:
            uid = self._uids.pop(key, "")
            self._forget(uid)
            self._written.pop(uid, None)
            self._metrics.maintenance_gone(self.kind, name)
            return None
        if obj["metadata"].get("deletionTimestamp"):
            return None
        self._uids[key] = uid = str(obj["metadata"]["uid"])
        keeper = self._keepers.keeper_of(obj)
        if keeper is not None:
            self._forget(uid)
            self._mirror(obj, keeper)
            return Requeue(_READ_SECONDS)
        return self._serve(obj, uid)

    # -- one repository ----------------------------------------------------------------------------------------------------------

    def _serve(self, obj: JsonObject, uid: str) -> Requeue:
        ledger = self._keepers.ledger_of(obj)
        if ledger.runs > Ledger.of(obj).runs:
            obj = self._patch(obj, {"metadata": {"annotations": {ANNOTATION_LEDGER: ledger.text()}}})
        obj, working = self._look_at_runs(obj, uid)
        try:
            settings: JobSettings | None = self._reader.settings_of(spec_of(obj))
            frequency = verify_frequency(obj, settings or JobSettings(), default=self._settings.verify_frequency)
            trouble: LongshoreError | None = None
        except LongshoreError as err:
            if err.retryable:
                raise
            settings, frequency, trouble = None, self._settings.verify_frequency, err
        plans = self._plans(obj, frequency)
        now = self._clock.now()
        wanted = None
        if working is None and self._runner is not None:
            wanted = next(
                (one for one in plans if one.begin is not None and one.begin <= now and self._may(obj, one)), None
            )
        if wanted is not None:
            if not self._places.take(mark_of(obj), uid):
                self._show(obj, plans)
                return Requeue(_PLACE_SECONDS)
            obj, working = self._begin(obj, uid, wanted.operation, settings, trouble)
            plans = self._plans(obj, frequency)
        self._show(obj, plans)
        if working is not None:
            return Requeue(_RUN_SECONDS)
        next_at = min((one.begin for one in plans if one.begin is not None and one.begin > now), default=None)
        seconds = _LOOK_SECONDS if next_at is None else (next_at - now).total_seconds()
        return Requeue(min(max(seconds, _LOOK_SECONDS_MIN), _LOOK_SECONDS))

    def _look_at_runs(self, obj: JsonObject, uid: str) -> tuple[JsonObject, Run | None]:
        """Record what ended, clean up, and give the run that works, if one does."""
        if self._runner is None or uid in self._looked:
            return obj, None
        ledger = Ledger.of(obj)
        try:
            runs = list(self._runner.runs(obj, recorded=ledger.runs))
        except ApiDeniedError as err:
            _log.warning(
                "Runs cannot be looked for", kind=self.kind, name=name_of(obj), error=err, next_step=err.next_step
            )
            return obj, None
        working = None
        for run in runs:
            if run.number <= ledger.runs:
                if run.state is not RunState.ENDED:
                    # It was given up for lost, and may not go on behind what was recorded.
                    self._runner.remove(obj, run)
            elif run.state is RunState.ENDED:
                outcome = run.outcome or Outcome(succeeded=False, message=_NO_REPORT)
                obj = self._record(obj, run.operation, outcome, run=run)
            elif (reason := self._patience.ends(uid, run)) is not None:
                outcome = Outcome(succeeded=False, message=reason)
                obj = self._record(obj, run.operation, outcome, run=run)
                self._runner.remove(obj, run)
            else:
                working = run
        if working is not None:
            self._places.hold(mark_of(obj), uid)
        else:
            self._places.give(uid)
            self._looked.add(uid)
            self._patience.forget(uid)
        self._clean_up(obj, [run for run in runs if run.state is RunState.ENDED])
        return obj, working

    def _clean_up(self, obj: JsonObject, ended: list[Run]) -> None:
        if self._runner is None or not ended:
            return
        try:
            keep = self._reader.settings_of(spec_of(obj)).keep
        except LongshoreError:
            keep = self._settings.keep
        for run in ended[: max(0, len(ended) - keep)]:
            self._runner.remove(obj, run)

    def _begin(
        self,
        obj: JsonObject,
        uid: str,
        operation: Operation,
        settings: JobSettings | None,
        trouble: LongshoreError | None,
    ) -> tuple[JsonObject, Run | None]:
        assert self._runner is not None
        ledger = Ledger.of(obj)
        number, name = ledger.runs + 1, ""
        try:
            if settings is None:
                raise trouble or UsageError("the settings of maintenance cannot be read")
            if operation is Operation.VERIFICATION:
                parts = verify_parts(obj, settings, default=self._settings.verify_parts)
                turn = ledger.record(operation).round.next_part(parts)
                settings = replace(settings, share=(turn, parts) if parts > 1 else None)
            # Numbers that are taken although the ledger does not know them, because somebody took it off the object.
            taken = max((run.number for run in self._runner.runs(obj, recorded=ledger.runs)), default=0)
            if taken > ledger.runs:
                self._looked.discard(uid)
                raise ConflictError(f"a run is there that was not expected: kind={self.kind}, name={name_of(obj)}")
            name = self._runner.begin(obj, operation=operation, number=number, settings=settings)
        except LongshoreError as err:
            self._places.give(uid)
            if err.retryable:
                raise
            outcome = Outcome(succeeded=False, message=f"the run could not be begun: {err.told()}")
            return self._record(obj, operation, outcome, run=None), None
        self._looked.discard(uid)
        _log.info("Began run", kind=self.kind, name=name_of(obj), operation=str(operation), run=name)
        return obj, Run(name=name, number=number, operation=operation, state=RunState.WAITING)

    # -- what is due -------------------------------------------------------------------------------------------------------------

    def _plans(self, obj: JsonObject, frequency: timedelta) -> list[_Plan]:
        ledger, now = Ledger.of(obj), self._clock.now()
        created = time_of((obj.get("metadata") or {}).get("creationTimestamp"))
        frequencies = {Operation.MAINTENANCE: self._frequency(obj), Operation.VERIFICATION: frequency}
        plans = []
        for operation in Operation:
            every = frequencies[operation]
            if every is None:
                continue
            shown = time_of(status_of(obj).get(LAST[operation]))
            due, begin = next_due(
                operation, ledger.record(operation), frequency=every, shown=shown, created=created, now=now
            )
            plans.append(_Plan(operation, due, begin))
        return plans

    def _frequency(self, obj: JsonObject) -> timedelta | None:
        """The frequency of maintenance; None where it cannot be read."""
        try:
            return self._model.from_dict(obj).spec.maintenance_frequency.span
        except LongshoreError:
            return None

    def _may(self, obj: JsonObject, plan: _Plan) -> bool:
        """Whether a repository is in a state to be worked on."""
        if status_of(obj).get("phase") != RepositoryPhase.READY:
            return False
        return plan.operation is not Operation.MAINTENANCE or not self._is_read_only(obj)

    def _is_read_only(self, obj: JsonObject) -> bool:
        try:
            return self._cluster.location(str(spec_of(obj).get("backupStorageLocation") or "")).spec.is_read_only
        except (NotFoundError, InvalidObjectError):
            # Then the repository is not ready soon, and says why.
            return True

    # -- several objects for one repository ----------------------------------------------------------------------------------------

    def _mirror(self, obj: JsonObject, keeper: JsonObject) -> None:
        """Show what the keeper shows."""
        theirs, ours = status_of(keeper), status_of(obj)
        fields = [*LAST.values(), *LISTS.values()]
        change: JsonObject = {
            name: theirs[name] for name in fields if theirs.get(name) and theirs[name] != ours.get(name)
        }
        types = {CONDITION_DUE, *FAILED_CONDITIONS.values()}
        wanted = [one for one in conditions_of(keeper) if one.get("type") in types]
        conditions = [*(one for one in conditions_of(obj) if one.get("type") not in types), *wanted]
        if conditions != conditions_of(obj):
            change["conditions"] = conditions
        for operation in Operation:
            self._metrics.maintenance(
                self.kind, name_of(obj), operation=str(operation), due=None, succeeded=None, failed=None
            )
        # Velero's own definitions prune what they do not know: without this the same would be written at every look.
        uid = str(obj["metadata"]["uid"])
        if change and self._written.get(uid) != change:
            obj = self._patch(obj, {"status": change})
            self._written[uid] = change
        # Its own, when the keeper is deleted.
        ledger = Ledger.of(keeper)
        if ledger.runs > Ledger.of(obj).runs:
            self._patch(obj, {"metadata": {"annotations": {ANNOTATION_LEDGER: ledger.text()}}})

    # -- telling -----------------------------------------------------------------------------------------------------------------

    def _record(self, obj: JsonObject, operation: Operation, outcome: Outcome, *, run: Run | None) -> JsonObject:
        """Write what came of a run, once: the ledger goes in the same write as the status. None is a run that could not be begun."""
        now = self._clock.now()
        # A clock that is ahead, where the run was, must not put the next run off.
        ended = min(outcome.ended or now, now)
        started = min(outcome.started or ended, ended)
        before = Ledger.of(obj)
        number, share = (None, None) if run is None else (run.number, run.share)
        ledger = before.after(operation, outcome, number=number, at=ended, share=share)
        was_failing, is_failing = before.record(operation).is_failing, ledger.record(operation).is_failing
        result = MaintenanceResult.SUCCEEDED if outcome.succeeded else MaintenanceResult.FAILED
        message = bounded(outcome.message)
        entry = {
            "result": str(result),
            "startTimestamp": format_time(started),
            "completeTimestamp": format_time(ended),
            "message": message,
        }
        listed = [one for one in status_of(obj).get(LISTS[operation]) or [] if isinstance(one, dict)]
        same = [one for one in listed if all(one.get(part) == entry[part] for part in ("result", "startTimestamp"))]
        status: JsonObject = {}
        # Of a run that had nothing to do it on the condition tells: to list it, or to date a success by it, would hide that there is nothing.
        if not same and not outcome.nothing:
            status[LISTS[operation]] = [*listed, entry][-_RECENT_MAX:]
        if outcome.succeeded and not outcome.nothing:
            status[LAST[operation]] = format_time(ended)
        type_ = FAILED_CONDITIONS[operation]
        failed = condition(
            type_,
            ConditionStatus.FALSE if outcome.succeeded else ConditionStatus.TRUE,
            reason=("NothingThere" if outcome.nothing else "RunSucceeded") if outcome.succeeded else "RunFailed",
            message=message,
        )
        # While a part is damaged the condition goes on telling of that, whatever another part is like.
        if not (outcome.succeeded and is_failing):
            status["conditions"] = merged(conditions_of(obj), [failed], now=now)
        if status_of(obj).get("phase") == RepositoryPhase.READY:
            status["message"] = trouble_of({"status": {**status_of(obj), **status}})
        written = self._patch(obj, {"metadata": {"annotations": {ANNOTATION_LEDGER: ledger.text()}}, "status": status})
        seconds = (ended - started).total_seconds()
        if not outcome.nothing:
            self._metrics.run_ended(
                self.kind,
                name_of(obj),
                operation=str(operation),
                succeeded=outcome.succeeded,
                seconds=seconds,
                freed=outcome.figures.get("bytes_freed", 0),
            )
        name = "" if run is None else run.name
        fields = {"kind": self.kind, "name": name_of(obj), "operation": str(operation), "run": name, "reason": message}
        if outcome.succeeded:
            _log.info("Recorded run", **fields)
            if was_failing and not is_failing:
                ending = "EndedWithNothing" if outcome.nothing else "Succeeded"
                self._recorder.record(written, EventType.NORMAL, reason_of(operation, ending), message)
        else:
            _log.warning("Recorded failed run", **fields)
            if not was_failing:
                # A Job's report is another process's, perhaps of another version.
                told = message if "; " in message else f"{message}; see the log of the run"
                self._recorder.record(written, EventType.WARNING, type_, told)
        return written

    def _show(self, obj: JsonObject, plans: list[_Plan]) -> None:
        """Keep condition MaintenanceDue and the metrics true."""
        now, status, uid = self._clock.now(), status_of(obj), str(obj["metadata"]["uid"])
        due = {one.operation: one.due for one in plans}
        if self._runner is None:
            due.pop(Operation.VERIFICATION, None)
        readable = self._frequency(obj) is not None
        at = due.get(Operation.MAINTENANCE)
        wanted: list[JsonObject] = []
        if not readable:
            text = f"the frequency cannot be read: maintenanceFrequency={str(spec_of(obj).get('maintenanceFrequency'))[:80]!r}; write it as 24h0m0s"
            wanted.append(condition(CONDITION_DUE, ConditionStatus.UNKNOWN, reason="FrequencyUnreadable", message=text))
        elif at is not None:
            is_due = now >= at
            wanted.append(
                condition(
                    CONDITION_DUE,
                    ConditionStatus.TRUE if is_due else ConditionStatus.FALSE,
                    reason="FrequencyPassed" if is_due else "FrequencyNotPassed",
                    message=f"maintenance is due at {format_time(at)}",
                )
            )
        held = {one.get("type"): one for one in conditions_of(obj)}
        told = [{**one, "lastTransitionTime": held.get(one["type"], {}).get("lastTransitionTime")} for one in wanted]
        fresh = any(held.get(one["type"]) != one for one in told) or (not wanted and CONDITION_DUE in held)
        # As in `_mirror`.
        if fresh and (held or self._written.get(uid) != {"wanted": wanted}):
            conditions = merged(conditions_of(obj), wanted, now=now, without=(CONDITION_DUE,))
            obj = self._patch(obj, {"status": {"conditions": conditions}})
            self._written[uid] = {"wanted": wanted}
        ledger = Ledger.of(obj)
        for operation in Operation:
            record = ledger.record(operation)
            last = record.succeeded or time_of(status.get(LAST[operation]))
            self._metrics.maintenance(
                self.kind,
                name_of(obj),
                operation=str(operation),
                due=None if (when := due.get(operation)) is None else when.timestamp(),
                succeeded=None if last is None else last.timestamp(),
                failed=record.is_failing if record.is_failing or last is not None else None,
            )

    def _patch(self, obj: JsonObject, body: JsonObject) -> JsonObject:
        return self._client.patch(
            self.resource,
            name_of(obj),
            body,
            namespace=obj["metadata"].get("namespace"),
            resource_version=obj["metadata"]["resourceVersion"],
        )

    def _forget(self, uid: str) -> None:
        self._looked.discard(uid)
        self._patience.forget(uid)
        self._places.give(uid)
