"""A clock that is off is told once, whatever else is asked of the API server meanwhile."""

from datetime import UTC, timedelta
from email.utils import format_datetime

import pytest

from longshore.kube import skew
from longshore.kube.fake.clock import ManualClock
from longshore.kube.skew import ClockComparison


class Record:
    """Keeps what is logged."""

    def __init__(self):
        self.warned = []

    def warning(self, message, **fields):
        self.warned.append({"message": message, **fields})


@pytest.fixture
def said(monkeypatch):
    record = Record()
    monkeypatch.setattr(skew, "_log", record)
    return record.warned


def answer(clock, **apart):
    return {"Date": format_datetime((clock.now() - timedelta(**apart)).astimezone(UTC), usegmt=True)}


@pytest.mark.parametrize("apart", [{"days": 3650}, {"days": -3650}, {"minutes": 6}], ids=str)
def test_apart_is_told_once(said, apart):
    clock = ManualClock()
    comparison = ClockComparison(clock)
    for _ in range(3):
        comparison.see(answer(clock, **apart))
    (record,) = said
    assert abs(record["ahead_seconds"] - timedelta(**apart).total_seconds()) <= 1


def test_it_is_told_again_only_after_the_clocks_had_met(said):
    clock = ManualClock()
    comparison = ClockComparison(clock)
    for hours in (1, 1, 0, 1):
        comparison.see(answer(clock, hours=hours))
    assert len(said) == 2


@pytest.mark.parametrize("headers", [{}, {"Date": ""}, {"Date": "soon"}, {"Date": "Thu, 99 Foo 2026 00:00:00 GMT"}])
def test_answers_without_a_date_say_nothing(said, headers):
    ClockComparison(ManualClock()).see(headers)
    assert said == []
