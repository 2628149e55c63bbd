"""Which snapshots a policy keeps, and why: restic's rules, source by source.

:func:`judge` is a function of its arguments, now among them: no clock, no store. For each rule the newest snapshot of a calendar bucket is kept, until as many
buckets are filled as the rule says; an unfilled rule also keeps the oldest snapshot, so that what is covered reaches back as far as it can. `within` counts
back from the newest snapshot of the source, not from now: a source that is no longer backed up keeps what it has. Buckets are those of the calendar in UTC;
weeks are ISO's.

A snapshot's time is what the clock of its host said. One that lies more than an hour ahead of now is of a clock that was wrong: it stays, and no rule counts
it, for as the newest it would take the place of every true one, for years. The clock of who judges is believed: where that is ahead, and the same host has
made a snapshot, `within` counts back from that one, and what a clock that is behind has dated is judged by that date.

A policy without any rule judges nothing: it keeps all. It does not know who deletes.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from longshore.errors import UsageError

__all__ = ["Policy", "Span", "Verdict", "is_dated_ahead", "judge", "parse_span"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPAN: Final = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)d)?(?:(\d+)h)?\Z")
_AHEAD_MAX: Final = timedelta(hours=1)
_DATED_AHEAD: Final = "dated in the future"
ALL: Final = -1
"""As the number of a rule: without bound."""


class Judged(Protocol):
    """What is asked of a snapshot."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def started_nanos(self) -> int: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the calendar."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def before(self, moment: datetime) -> datetime:
        """The moment that lies so much earlier; a day that its month does not have is the month's last."""
        months = moment.year * 12 + moment.month - 1 - (self.years * 12 + self.months)
        year, month = divmod(months, 12)
        if year < 1:
            return datetime.min.replace(tzinfo=UTC)
        day = min(moment.day, monthrange(year, month + 1)[1])
        try:
            return moment.replace(year=year, month=month + 1, day=day) - timedelta(days=self.days, hours=self.hours)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number) or "0h"


def parse_span(text: str) -> Span:
    """Read a span such as `1y6m`, `30d` or `2d12h`: years, months, days, hours, in this order.

    Raises:
        UsageError: it is none.
    """
    match = _SPAN.match(text)
    if not text or match is None:
        raise UsageError(f"this is no span of time: span={text}", "write for example 7d, 2m or 1y6m: y, m, d, h")
    years, months, days, hours = (int(number or 0) for number in match.groups())
    return Span(years=years, months=months, days=days, hours=hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to keep of each source. A number of 0 keeps nothing by its rule, -1 everything."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span | None = None
    tags: Sequence[str] = field(default=())
    """`key` or `key=value`: snapshots that have one of them are kept."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule at all."""
        return not (any(number for number, _, _ in _rules(self)) or self.within or self.tags)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one snapshot."""

    snapshot_id: str
    source: str
    started_nanos: int
    reasons: tuple[str, ...]
    """The rules that keep it; none: it goes."""
    dated_ahead: bool = False
    """It is dated in the future: whatever the rules, it stays, and counts for none of them."""

    @property
    def keep(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def _moment(nanos: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=nanos // 1000)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if nanos < 0 else datetime.max.replace(tzinfo=UTC)


def is_dated_ahead(started_nanos: int, *, now: datetime) -> bool:
    """Tell whether a snapshot's time lies too far ahead to be true: clocks that are kept differ by less than an hour."""
    return _moment(started_nanos) - now > _AHEAD_MAX


_Bucket = Callable[[datetime, int], object]


def _rules(policy: Policy) -> list[tuple[int, str, _Bucket]]:
    return [
        (policy.last, "last", lambda _, number: number),
        (policy.hourly, "hourly", lambda moment, _: (moment.date(), moment.hour)),
        (policy.daily, "daily", lambda moment, _: moment.date()),
        (policy.weekly, "weekly", lambda moment, _: moment.isocalendar()[:2]),
        (policy.monthly, "monthly", lambda moment, _: (moment.year, moment.month)),
        (policy.yearly, "yearly", lambda moment, _: moment.year),
    ]


def _has_tag(tags: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in tags and (not equals or tags[key] == value)


def judge(snapshots: Iterable[Judged], policy: Policy, *, now: datetime) -> list[Verdict]:
    """Judge every snapshot.

    Args:
        snapshots: in any order.
        policy: for each source alone.
        now: what is dated more than an hour later stays, and counts for no rule.

    Returns:
        A verdict each: by source, newest first.

    Raises:
        UsageError: a number of the policy is below -1.
    """
    for number, name, _ in _rules(policy):
        if number < ALL:
            raise UsageError(
                f"a rule keeps a number of snapshots: rule={name}, number={number}", "give 0 or more, or -1 for all"
            )
    by_source: dict[str, list[Judged]] = {}
    for snapshot in snapshots:
        by_source.setdefault(snapshot.source, []).append(snapshot)
    verdicts = []
    for source in sorted(by_source):
        rows = sorted(by_source[source], key=lambda row: (row.started_nanos, row.id), reverse=True)
        ahead = [row for row in rows if is_dated_ahead(row.started_nanos, now=now)]
        verdicts += [Verdict(row.id, source, row.started_nanos, (_DATED_AHEAD,), dated_ahead=True) for row in ahead]
        true = rows[len(ahead) :]
        for row, reasons in zip(true, _reasons(true, policy), strict=True):
            verdicts.append(Verdict(row.id, source, row.started_nanos, tuple(reasons)))
    return verdicts


def _reasons(rows: Sequence[Judged], policy: Policy) -> list[list[str]]:
    """Why each is kept; `rows` are of one source, newest first."""
    reasons: list[list[str]] = [[] for _ in rows]
    if policy.is_empty:
        return [["no policy"] for _ in rows]
    moments = [_moment(row.started_nanos) for row in rows]
    for number, name, bucket in _rules(policy):
        left, last = number, object()
        for at, moment in enumerate(moments):
            if left == 0:
                break
            value = bucket(moment, at)
            oldest = at == len(rows) - 1
            if value != last or oldest:
                reasons[at].append(f"{name} snapshot" if value != last else f"oldest {name} snapshot")
                last, left = value, left - 1 if left > 0 else left
    if policy.within and moments:
        since = policy.within.before(moments[0])
        for at, moment in enumerate(moments):
            if moment > since:
                reasons[at].append(f"within {policy.within}")
    for wanted in policy.tags:
        for at, row in enumerate(rows):
            if _has_tag(row.tags, wanted):
                reasons[at].append(f"tag {wanted}")
    return reasons
