"""What is remembered of the runs of one repository, and when the next one is due.

It lives in an annotation of the repository's object, because Velero's own definitions drop fields of the status that they do not know, and what decides must
outlive them. Runs are numbered; a run whose number is not above `runs` is recorded already. The status shows the same to people.

Promises: an annotation that is not there, or that somebody spoilt, costs at most one run too many; a time in the future, as of a clock that was wrong, never
keeps a run from being due.

It does not know what runs do, nor where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from longshore.api.model import JsonObject
from longshore.api.values import Timestamp
from longshore.controllers.maintenance.rounds import Round
from longshore.errors import LongshoreError
from longshore.kube.clock import format_time
from longshore.logs import redact

__all__ = ["ANNOTATION_LEDGER", "Ledger", "Operation", "Outcome", "Record", "next_due"]

ANNOTATION_LEDGER: Final = "longshore.io/maintenance"
_OUTCOME_BYTES_MAX: Final = 3_500
"""A kubelet keeps 4,096 bytes of a termination message."""
_MESSAGE_CHARS_MAX: Final = 1_500
_FIGURES_MAX: Final = 20
_FREQUENCY_MIN: Final = timedelta(minutes=1)
_AHEAD_MAX: Final = timedelta(hours=1)


class Operation(StrEnum):
    """What a run does."""

    MAINTENANCE = "maintenance"
    VERIFICATION = "verification"


# After the first failure in a row and after many: to read everything again costs more than to prune again.
_RETRIES: Final = {
    Operation.MAINTENANCE: (timedelta(minutes=15), timedelta(hours=6)),
    Operation.VERIFICATION: (timedelta(hours=1), timedelta(hours=24)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run; crosses from the run's process to the server as the text of :meth:`text`."""

    succeeded: bool
    message: str
    started: datetime | None = None
    ended: datetime | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    reported: bool = False
    """The run came to its end: what it says, a failure too, is of the repository and not of the run."""
    nothing: bool = False
    """There was nothing to do it on: no failure, and no success that anybody may rely on either."""

    def text(self) -> str:
        """Write it for a termination message: short, and without what looks like a secret."""
        body = {
            "longshore": 1,
            "succeeded": self.succeeded,
            "reported": self.reported,
            "nothing": self.nothing,
            "message": str(redact(self.message))[:_MESSAGE_CHARS_MAX],
            "started": None if self.started is None else format_time(self.started),
            "ended": None if self.ended is None else format_time(self.ended),
            "figures": dict(self.figures),
        }
        text = msgspec.json.encode(body)
        while len(text) > _OUTCOME_BYTES_MAX and body["message"]:
            body["message"] = str(body["message"])[: len(str(body["message"])) // 2]
            text = msgspec.json.encode(body)
        return text.decode()

    @classmethod
    def parse(cls, text: str) -> Outcome | None:
        """Read what :meth:`text` wrote; None for anything else."""
        try:
            body = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return None
        if not isinstance(body, dict) or body.get("longshore") != 1 or not isinstance(body.get("succeeded"), bool):
            return None
        figures = body.get("figures") if isinstance(body.get("figures"), dict) else {}
        assert isinstance(figures, dict)
        numbers = {str(name): value for name, value in figures.items() if isinstance(value, int | float)}
        return cls(
            succeeded=body["succeeded"],
            message=str(body.get("message") or "")[:_MESSAGE_CHARS_MAX],
            started=_time(body.get("started")),
            ended=_time(body.get("ended")),
            figures=dict(list(numbers.items())[:_FIGURES_MAX]),
            reported=body.get("reported") is True,
            nothing=body["succeeded"] and body.get("nothing") is True,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one operation."""

    succeeded: datetime | None = None
    """When it last succeeded."""
    failed: datetime | None = None
    """When it failed last, since it last succeeded."""
    failures: int = 0
    """How often since it last succeeded."""
    successes: int = 0
    """How often it succeeded."""
    idle: datetime | None = None
    """When a run last found nothing to do it on, since it last succeeded or failed."""
    round: Round = field(default_factory=Round)
    """Whose turn it is where each run reads another part."""

    @property
    def is_failing(self) -> bool:
        """Whether the last run failed, or one before it found damage in a part that has not been whole since."""
        return self.failures > 0 or bool(self.round.again)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is remembered of all runs of one repository."""

    runs: int = 0
    """The number of the last run that was recorded."""
    records: Mapping[Operation, Record] = field(default_factory=dict)

    @classmethod
    def of(cls, obj: JsonObject) -> Ledger:
        """Read it from a repository's object."""
        text = ((obj.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_LEDGER)
        try:
            body = msgspec.json.decode(str(text or "{}"))
        except msgspec.DecodeError:
            body = {}
        body = body if isinstance(body, dict) else {}
        runs = body.get("runs")
        records = {operation: _record(body.get(operation)) for operation in Operation if body.get(operation)}
        return cls(max(runs, 0) if isinstance(runs, int) else 0, records)

    def record(self, operation: Operation) -> Record:
        """Give what is remembered of one operation."""
        return self.records.get(operation, Record())

    def after(
        self,
        operation: Operation,
        outcome: Outcome,
        *,
        number: int | None,
        at: datetime,
        share: tuple[int, int] | None = None,
    ) -> Ledger:
        """Give the ledger after a run.

        Args:
            outcome: what came of it.
            number: of the run; None for one that could not even be begun.
            at: when it ended.
            share: (part, parts) of the packs that it was to read; None for all.
        """
        before = self.record(operation)
        after = before.round
        if number is not None and not outcome.nothing:
            reported = outcome.reported or outcome.succeeded
            after = before.round.after(share, succeeded=outcome.succeeded, reported=reported)
        if outcome.nothing:
            # Where no snapshot is left none is damaged.
            now = replace(before, idle=at, failed=None, failures=0, round=replace(before.round, again=()))
        elif outcome.succeeded:
            now = Record(succeeded=at, successes=before.successes + 1, round=after)
        else:
            now = replace(before, failed=at, failures=before.failures + 1, idle=None, round=after)
        runs = self.runs if number is None else max(self.runs, number)
        return Ledger(runs, {**self.records, operation: now})

    def text(self) -> str:
        """Write it for the annotation."""
        body: dict[str, Any] = {"runs": self.runs}
        for operation, record in sorted(self.records.items()):
            body[operation] = {
                "succeeded": None if record.succeeded is None else format_time(record.succeeded),
                "failed": None if record.failed is None else format_time(record.failed),
                "failures": record.failures,
                "successes": record.successes,
                "round": record.round.body(),
                **({} if record.idle is None else {"idle": format_time(record.idle)}),
            }
        return msgspec.json.encode(body).decode()


def next_due(
    operation: Operation,
    record: Record,
    *,
    frequency: timedelta,
    shown: datetime | None,
    created: datetime | None,
    now: datetime,
) -> tuple[datetime | None, datetime | None]:
    """Tell when an operation is due by its frequency, and not before when it is tried again after failures.

    Where a run found nothing to do it on, it is due again as late as after many failures: there is nothing that waits for it.

    Args:
        record: what is remembered of the operation.
        frequency: zero or less for never.
        shown: the last success as the status has it.
        created: when the repository's object was made, from which the first run is counted.

    Returns:
        Both times, None for never. The second is later than the first only after a failure.
    """
    if frequency <= timedelta(0):
        return None, None
    known = [at for at in (record.succeeded, shown) if at is not None and at <= now + _AHEAD_MAX]
    base = max(known, default=None)
    if base is None:
        # A time in the future says nothing, and neither does the creation of what has run before.
        base = created if record.succeeded is None and shown is None and created is not None else now - frequency
    try:
        due = base + max(frequency, _FREQUENCY_MIN)
    except OverflowError:
        return None, None
    first, most = _RETRIES[operation]
    if record.idle is not None and record.idle <= now + _AHEAD_MAX:
        due = max(due, record.idle + most)
    if record.failures == 0 or record.failed is None or record.failed > now + _AHEAD_MAX:
        return due, due
    wait = min(first * 2 ** min(record.failures - 1, 10), most)
    return due, max(due, record.failed + wait)


def _record(body: object) -> Record:
    if not isinstance(body, dict):
        return Record()
    successes = _count(body.get("successes"))
    return Record(
        _time(body.get("succeeded")),
        _time(body.get("failed")),
        _count(body.get("failures")),
        successes,
        _time(body.get("idle")),
        Round.of(body.get("round"), turn=successes),
    )


def _count(number: object) -> int:
    return max(number, 0) if isinstance(number, int) else 0


def _time(text: object) -> datetime | None:
    if not isinstance(text, str) or not text:
        return None
    try:
        return Timestamp(text).time.astimezone(UTC)
    except LongshoreError:
        return None
