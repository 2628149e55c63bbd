"""What commands print: sizes and ages, tables, JSON lines, progress; and that nothing foreign reaches a terminal raw."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, replace

import pytest

from longshore.cli.output import human
from longshore.cli.output.bar import BarDisplay
from longshore.cli.output.progress import JsonDisplay, LineDisplay, Meter, SilentDisplay, sentence
from longshore.cli.output.sink import JsonOutput, TextOutput, path_fields
from longshore.cli.output.tables import Column, facts, render
from longshore.errors import StoreDeniedError


@dataclass(frozen=True)
class Counters:
    stage: str = "running"
    files_total: int = 10
    files_done: int = 5
    bytes_total: int = 1000 << 20
    bytes_done: int = 250 << 20
    bytes_moved: int = 250 << 20
    bytes_stored: int = 100 << 20
    items_lost: int = 0
    begun_nanos: int = 0
    packs_known: int = 0
    current: str = "base/1"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_sizes_are_binary_and_never_read_1024(count_bytes: int, text: str) -> None:
    assert human.size(count_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172800, "2d"),
        (800 * 86400, "2y"),
        (-9, "future"),
    ],
)
def test_ages_read_as_kubectls(seconds: float, text: str) -> None:
    assert human.age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (59.9, "1 min 0 s"), (3725, "1 h 2 min"), (90000, "1 d 1 h")],
)
def test_durations_carry_over(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain \xc3\xa4", "plain \u00e4"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"two\nlines\t\r", "two\\nlines\\t\\r"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("exe\u202etxt".encode(), "exe\\u202etxt"),
        ("\u0085\u009b".encode(), "\\x85\\x9b"),
    ],
)
def test_names_cannot_steer_a_terminal(raw: bytes, shown: str) -> None:
    assert human.path_text(raw) == shown


def test_tables_align_wide_characters_and_numbers() -> None:
    lines = render((Column("NAME"), Column("N", right=True)), [("\u732b", "1"), ("abc\x1b", "1000")])
    assert lines == ["NAME         N", "\u732b           1", "abc\\x1b   1000"]


def test_facts_leave_out_what_has_no_value() -> None:
    assert facts([("a", "1"), ("bcd", ""), ("ef", "2")], indent=" ") == [" a    1", " ef   2"]


def test_json_lines_are_json_whatever_a_name_holds(capsys: pytest.CaptureFixture[str]) -> None:
    output = JsonOutput()
    output.row(path_fields(b"\xff"))
    output.row(path_fields("\u2028\u00e4".encode()))
    output.error(StoreDeniedError("no entry: bucket=b", "bring a key"))
    output.line("never shown")
    output.summary({"exit_code": 15}, ["never shown"])
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert lines == [
        {"type": "row", "path_base64": "/w=="},
        {"type": "row", "path": "\u2028\u00e4"},
        {"type": "error", "code": "store_denied", "message": "no entry: bucket=b", "next_step": "bring a key"},
        {"type": "summary", "exit_code": 15},
    ]
    assert captured.err == "error: no entry: bucket=b\nnext: bring a key\n"


def test_quiet_keeps_errors_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    output = TextOutput(quiet=True)
    output.note("gone")
    output.summary({}, ["gone"])
    output.line("result")
    output.say("lost")
    output.error(StoreDeniedError("no\x1b entry"))
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert captured.err == "lost\nerror: no\\x1b entry\n"
    assert isinstance(output.watch("Backing up"), SilentDisplay)
    assert isinstance(JsonOutput(quiet=True).watch("Backing up"), SilentDisplay)


def test_text_goes_to_a_stream_that_knows_ascii_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    TextOutput().line("\u00e4")
    sys.stdout.flush()
    assert raw.getvalue() == b"\\xe4\n"


def test_rate_follows_the_last_seconds_and_foretells_the_end() -> None:
    clock = Clock()
    meter = Meter(clock)
    counters = Counters(bytes_total=10_000, bytes_done=0)
    assert meter.read(counters).eta_seconds is None
    for second in range(1, 61):
        clock.now = 100.0 + second
        # A hundred bytes a second, then ten.
        done = 100 * min(second, 20) + 10 * max(second - 20, 0)
        reading = meter.read(replace(counters, bytes_done=done))
        assert (reading.eta_seconds is not None) == (second >= 3)
    assert reading.bytes_per_second == pytest.approx(10, rel=0.05)
    assert reading.eta_seconds == pytest.approx((10_000 - 2400) / 10, rel=0.05)
    assert reading.fraction == pytest.approx(0.24)


def test_totals_that_still_grow_foretell_nothing() -> None:
    """A first backup's walk is just ahead of its reading: 99 % of what is known is not 99 %."""
    clock = Clock()
    meter = Meter(clock)
    for second in range(1, 30):
        clock.now = 100.0 + second
        reading = meter.read(
            Counters(bytes_total=1000 * second, bytes_done=990 * second, files_total=second, files_done=second)
        )
        assert not reading.settled
        assert reading.eta_seconds is None
        assert " of " not in sentence(reading)
    assert meter.read(replace(Counters(), stage="committing")).settled
    clock.now += 3
    assert meter.read(replace(Counters(), stage="committing")).settled


def test_files_tell_how_far_when_there_are_no_bytes() -> None:
    reading = Meter(Clock()).read(Counters(bytes_total=0, bytes_done=0, files_done=5, files_total=10))
    assert reading.fraction == pytest.approx(0.5)
    assert Meter(Clock()).read(Counters(bytes_total=0, files_total=0, files_done=0)).fraction == 0


def test_a_line_every_ten_seconds_and_not_before() -> None:
    clock, lines = Clock(), []
    display = LineDisplay("Backing up", lines.append, clock)
    for tenth in range(301):
        clock.now = 100.0 + tenth / 10
        display.update(Counters())
    assert len(lines) == 3
    assert lines[0].startswith("Backing up: 25%, 250.0 MiB of 1000.0 MiB, ")
    assert "5 of 10 files, stored 100.0 MiB" in lines[0]


def test_json_progress_comes_each_second() -> None:
    clock, fields = Clock(), []
    display = JsonDisplay(fields.append, clock)
    for tenth in range(30):
        clock.now = 100.0 + tenth / 10
        display.update(Counters())
    assert len(fields) == 3
    assert fields[0]["bytes_stored"] == 100 << 20
    assert fields[2]["seconds"] == pytest.approx(2.0)
    json.dumps(fields)


def test_sentence_names_losses() -> None:
    assert sentence(Meter(Clock()).read(Counters(items_lost=2))).endswith("lost 2")


def test_bar_draws_on_its_stream_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    display = BarDisplay("Backing up", terminal)
    display.update(Counters())
    assert "25%" not in terminal.getvalue()
    monkeypatch.setattr("longshore.cli.output.progress.SETTLED_AFTER_SECONDS", 0.0)
    display._drawn = 0.0
    display.update(replace(Counters(), current="a\x1b]0;owned\x07"))
    shown = terminal.getvalue()
    display.close()
    display.close()
    assert "Backing up" in shown
    assert "running" not in shown
    assert "25%" in shown
    assert "a\\x1b]0;owned" in shown
    assert "\x1b]0;" not in shown
    # The cursor is shown again, and what was drawn is erased.
    after = terminal.getvalue()[len(shown) :]
    assert "\x1b[?25h" in after
    assert after.count("\x1b[2K") >= 2
