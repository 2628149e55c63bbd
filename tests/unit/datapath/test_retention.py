"""What a policy keeps: properties that hold for every history, and the cases that restic's users know."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.datapath.retention import Policy, Span, Verdict, judge, parse_span
from longshore.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """As much of a snapshot as is judged."""

    id: str
    source: str
    started_nanos: int
    tags: dict[str, str] = field(default_factory=dict)


def nanos(moment: datetime) -> int:
    return int((moment - EPOCH) / timedelta(microseconds=1)) * 1000


def at(text: str, *, source: str = "a", tags: dict[str, str] | None = None) -> Row:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return Row(text, source, nanos(moment), tags or {})


def kept(rows: list[Row], policy: Policy) -> list[str]:
    return sorted(verdict.snapshot_id for verdict in judge(rows, policy, now=NOW) if verdict.keep)


numbers = st.integers(min_value=-1, max_value=6)
policies = st.builds(
    Policy,
    last=numbers,
    hourly=numbers,
    daily=numbers,
    weekly=numbers,
    monthly=numbers,
    yearly=numbers,
    within=st.none() | st.builds(Span, days=st.integers(1, 60), months=st.integers(0, 3)),
    tags=st.lists(st.sampled_from(["keep", "app=db"]), max_size=2),
)
histories = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(min_value=0, max_value=3 * 365 * 24 * 60),
        st.sampled_from([{}, {"keep": ""}, {"app": "db"}, {"app": "web"}]),
    ),
    max_size=40,
).map(lambda rows: [Row(f"{n:04d}", s, m * 60 * 10**9, t) for n, (s, m, t) in enumerate(rows)])


minutes = 60 * 10**9
# From a minute more than an hour ahead of now to the last nanosecond that fits.
futures = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(min_value=61 * minutes, max_value=(1 << 64) - 1 - nanos(NOW)),
        st.sampled_from([{}, {"keep": ""}]),
    ),
    max_size=5,
).map(lambda rows: [Row(f"f{n:03d}", s, nanos(NOW) + ahead, t) for n, (s, ahead, t) in enumerate(rows)])


def by_source(verdicts: list[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        found[verdict.source].append(verdict)
    return found


@given(histories, policies)
def test_every_snapshot_is_judged_once_and_sources_do_not_touch_one_another(rows: list[Row], policy: Policy) -> None:
    verdicts = judge(rows, policy, now=NOW)
    assert sorted(v.snapshot_id for v in verdicts) == sorted(row.id for row in rows)
    for source in {row.source for row in rows}:
        alone = judge([row for row in rows if row.source == source], policy, now=NOW)
        assert alone == by_source(verdicts)[source]
    assert judge(list(reversed(rows)), policy, now=NOW) == verdicts


@given(histories, policies)
def test_the_newest_of_each_source_stays_unless_only_tags_are_kept(rows: list[Row], policy: Policy) -> None:
    counted = any(
        (policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly, policy.within)
    )
    for verdicts in by_source(judge(rows, policy, now=NOW)).values():
        if counted or policy.is_empty:
            assert verdicts[0].keep


@given(histories, numbers)
def test_a_number_keeps_so_many_buckets_and_no_more(rows: list[Row], number: int) -> None:
    for verdicts in by_source(judge(rows, Policy(daily=number, last=0), now=NOW)).values():
        days = {(EPOCH + timedelta(microseconds=v.started_nanos // 1000)).date() for v in verdicts}
        stays = [v for v in verdicts if v.keep]
        if number == 0:
            assert len(stays) == len(verdicts), "no rule, no deletion"
        elif number == -1:
            assert len(stays) in {len(days), len(days) + 1}
        else:
            assert min(number, len(days)) <= len(stays) <= number


@given(histories, policies, policies)
def test_more_rules_never_keep_less(rows: list[Row], one: Policy, other: Policy) -> None:
    def most(a: int, b: int) -> int:
        return -1 if -1 in (a, b) else max(a, b)

    both = Policy(
        last=most(one.last, other.last),
        hourly=most(one.hourly, other.hourly),
        daily=most(one.daily, other.daily),
        weekly=most(one.weekly, other.weekly),
        monthly=most(one.monthly, other.monthly),
        yearly=most(one.yearly, other.yearly),
        within=one.within,
        tags=[*one.tags, *other.tags],
    )
    if not one.is_empty:
        assert set(kept(rows, one)) <= set(kept(rows, both))


@given(histories, policies)
def test_judging_again_what_was_kept_deletes_nothing_that_tags_or_spans_hold(rows: list[Row], policy: Policy) -> None:
    held = Policy(within=policy.within, tags=policy.tags)
    left = [row for row in rows if row.id in kept(rows, held)]
    assert kept(left, held) == sorted(row.id for row in left)


@given(histories, futures, policies)
def test_what_is_dated_in_the_future_stays_and_changes_nothing_for_the_others(
    rows: list[Row], ahead: list[Row], policy: Policy
) -> None:
    verdicts = judge([*rows, *ahead], policy, now=NOW)
    dated = [verdict for verdict in verdicts if verdict.dated_ahead]
    assert sorted(verdict.snapshot_id for verdict in dated) == sorted(row.id for row in ahead)
    assert all(verdict.reasons == ("dated in the future",) for verdict in dated)
    assert [verdict for verdict in verdicts if not verdict.dated_ahead] == judge(rows, policy, now=NOW)


@pytest.mark.parametrize(
    ("seconds", "reasons"), [(3600, ("last snapshot",)), (3601, ("dated in the future",)), (-1, ("last snapshot",))]
)
def test_an_hour_ahead_is_no_future_yet(seconds: int, reasons: tuple[str, ...]) -> None:
    (verdict,) = judge([Row("x", "a", nanos(NOW + timedelta(seconds=seconds)))], Policy(last=1), now=NOW)
    assert verdict.reasons == reasons


@pytest.mark.parametrize("policy", [Policy(within=Span(days=30)), Policy(last=3), Policy(daily=3), Policy(yearly=1)])
def test_a_clock_that_is_years_ahead_costs_no_true_snapshot(policy: Policy) -> None:
    rows = [Row(f"{day:02d}", "a", nanos(NOW - timedelta(days=day))) for day in range(1, 31)]
    bogus = Row("bogus", "a", nanos(NOW + timedelta(days=3650)))
    assert kept([*rows, bogus], policy) == [*kept(rows, policy), "bogus"]
    assert "01" in kept([*rows, bogus], policy)


def test_buckets_are_those_of_the_calendar_and_the_newest_of_each_stays() -> None:
    rows = [at(f"2026-03-{day:02d}T{hour:02d}:30") for day in range(1, 11) for hour in (3, 15)]
    assert kept(rows, Policy(daily=3)) == ["2026-03-08T15:30", "2026-03-09T15:30", "2026-03-10T15:30"]
    # 2 March 2026 is a Monday.
    assert kept(rows, Policy(weekly=2)) == ["2026-03-08T15:30", "2026-03-10T15:30"]
    assert kept(rows, Policy(last=1)) == ["2026-03-10T15:30"]
    assert kept(rows, Policy(hourly=2)) == ["2026-03-10T03:30", "2026-03-10T15:30"]


def test_the_oldest_stays_while_a_rule_is_not_filled() -> None:
    rows = [at("2026-01-05T10:00"), at("2026-01-20T10:00"), at("2026-02-01T10:00")]
    verdicts = {v.snapshot_id: v.reasons for v in judge(rows, Policy(monthly=12), now=NOW)}
    assert verdicts == {
        "2026-02-01T10:00": ("monthly snapshot",),
        "2026-01-20T10:00": ("monthly snapshot",),
        "2026-01-05T10:00": ("oldest monthly snapshot",),
    }
    assert kept(rows, Policy(monthly=2)) == ["2026-01-20T10:00", "2026-02-01T10:00"]


def test_within_counts_back_from_the_newest_of_the_source() -> None:
    rows = [at("2020-01-01T00:00"), at("2020-01-30T12:00"), at("2020-02-29T12:00"), at("2026-01-01T00:00", source="b")]
    assert kept(rows, Policy(within=parse_span("1m"))) == ["2020-01-30T12:00", "2020-02-29T12:00", "2026-01-01T00:00"]
    assert Span(months=1).before(datetime(2026, 3, 31, tzinfo=UTC)) == datetime(2026, 2, 28, tzinfo=UTC)
    assert Span(years=3000).before(EPOCH).year == 1


def test_tags_keep_whatever_their_age() -> None:
    rows = [
        at("2020-01-01T00:00", tags={"app": "db"}),
        at("2021-01-01T00:00", tags={"app": "web"}),
        at("2022-01-01T00:00"),
    ]
    assert kept(rows, Policy(tags=["app"])) == ["2020-01-01T00:00", "2021-01-01T00:00"]
    assert kept(rows, Policy(tags=["app=db"])) == ["2020-01-01T00:00"]


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1d2y", "7 d", "1w"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


def test_spans_are_written_as_they_are_read() -> None:
    assert str(parse_span("1y6m30d12h")) == "1y6m30d12h"
    with pytest.raises(UsageError):
        judge([], Policy(last=-2), now=NOW)
