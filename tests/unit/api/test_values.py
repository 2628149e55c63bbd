"""Times, durations and label values are read and written as Go and Velero do."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.api import Duration, Timestamp, valid_label_value
from longshore.errors import InvalidObjectError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("720h0m0s", 2_592_000),
        ("1h", 3600),
        ("1.5h", 5400),
        ("1h1.5s", 3601.5),
        ("300ms", 0.3),
        ("12us", 0.000012),
        ("12µs", 0.000012),
        ("12\u03bcs", 0.000012),
        ("1500ns", 0.000001),
        (".5s", 0.5),
        ("1.s", 1),
        ("-1m30s", -90),
        ("+5s", 5),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert Duration(text).span == timedelta(seconds=seconds)
    assert Duration(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "5", "h", "1d", "1 h", "1h ", "--1s", "1,5s", "banana", "-", "+", ".s", "9223372037s", "1" * 400 + "h", "٣s"],
)
def test_nonsense_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidObjectError, match="not a duration"):
        _ = Duration(text).span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2_592_000, "720h0m0s"),
        (3600, "1h0m0s"),
        (90, "1m30s"),
        (60, "1m0s"),
        (1.5, "1.5s"),
        (0.0015, "1.5ms"),
        (0.000007, "7µs"),
        (0, "0s"),
        (-90, "-1m30s"),
    ],
)
def test_duration_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert Duration.of(timedelta(seconds=seconds)) == text


@given(st.integers(-(2**62) // 1000, 2**62 // 1000))
def test_duration_comes_back(microseconds: int) -> None:
    span = timedelta(microseconds=microseconds)
    assert Duration.of(span).span == span


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-21T09:30:00Z", datetime(2026, 11, 21, 9, 30, tzinfo=UTC)),
        ("2026-11-21T10:30:00+01:00", datetime(2026, 11, 21, 9, 30, tzinfo=UTC)),
        ("2026-11-21T09:30:00.123456789Z", datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)),
        ("2026-11-21T09:30:00.5Z", datetime(2026, 11, 21, 9, 30, 0, 500000, tzinfo=UTC)),
        ("2026-11-21t09:30:00z", datetime(2026, 11, 21, 9, 30, tzinfo=UTC)),
    ],
)
def test_time_is_read(text: str, time: datetime) -> None:
    assert Timestamp(text).time == time
    assert Timestamp(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-21",
        "2026-11-21T09:30:00",
        "2026-13-21T09:30:00Z",
        "2026-11-21T09:30:61Z",
        "0001-01-01T00:00:00+23:00",
        "now",
    ],
)
def test_nonsense_is_no_time(text: str) -> None:
    with pytest.raises(InvalidObjectError, match="not an RFC 3339 time"):
        _ = Timestamp(text).time


def test_time_is_written_in_utc_without_fraction() -> None:
    time = datetime(2026, 11, 21, 10, 30, 0, 999999, tzinfo=timezone(timedelta(hours=1)))
    assert Timestamp.of(time) == "2026-11-21T09:30:00Z"


def test_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        Timestamp.of(datetime(2026, 11, 21))


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", max_size=300))
def test_label_value_fits_and_is_veleros(name: str) -> None:
    value = valid_label_value(name)
    assert len(value) <= 63
    if len(name) <= 63:
        assert value == name
    else:
        assert value == name[:57] + hashlib.sha256(name.encode()).hexdigest()[:6]


def test_label_value_pinned() -> None:
    assert valid_label_value("a" * 63) == "a" * 63
    assert valid_label_value("a" * 64) == "a" * 57 + "ffe054"
