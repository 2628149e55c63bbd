"""How far a running job has come, shown as suits who is looking.

A bar on a terminal (at most ten times a second), a line every ten seconds elsewhere, a JSON line every second for programs, nothing when quiet. All of them
show what one :class:`Meter` measured, from the job's counters and a clock that is handed in.

Promises: a display never writes to standard output except as JSON, and leaves the terminal as it found it. It does not know what kind of job it watches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from longshore.cli.output.human import count, duration, plural, printable, size

__all__ = [
    "Counters",
    "Display",
    "JsonDisplay",
    "LineDisplay",
    "Meter",
    "Reading",
    "SilentDisplay",
    "sentence",
    "titled",
]

# A rate over the last seconds follows a job that changes its pace and does not jump with each file.
WINDOW_SECONDS = 15.0
RATE_AFTER_SECONDS = 0.5
# A first backup learns what there is while it walks, just ahead of what it reads: a bar over such totals would always be full.
SETTLED_AFTER_SECONDS = 3.0
LATE_STAGES = frozenset({"committing", "finished"})
LINE_EVERY_SECONDS = 10.0
JSON_EVERY_SECONDS = 1.0


class Counters(Protocol):  # the data path's Progress says what each counts
    """The data path's counters; totals grow while the volume is still being walked."""

    # ruff: disable[D102] - named as they are counted
    @property
    def stage(self) -> str: ...
    @property
    def files_total(self) -> int: ...
    @property
    def files_done(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def bytes_moved(self) -> int: ...
    @property
    def bytes_stored(self) -> int: ...
    @property
    def items_lost(self) -> int: ...
    @property
    def begun_nanos(self) -> int: ...
    @property
    def packs_known(self) -> int: ...
    @property
    def current(self) -> str: ...

    # ruff: enable[D102]


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a job."""

    counters: Counters
    seconds: float
    """Since the job began."""
    bytes_per_second: float
    """Of file bytes dealt with, over the last seconds."""
    eta_seconds: float | None
    """None while nothing can be said."""
    settled: bool
    """The totals have not grown for a while: how far the job is can be told."""

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        counters = self.counters
        done, total = (
            (counters.bytes_done, counters.bytes_total)
            if counters.bytes_total
            else (counters.files_done, counters.files_total)
        )
        return min(done / total, 1.0) if total else 0.0

    def fields(self) -> dict[str, object]:
        """The fields of a JSON progress line."""
        counters = self.counters
        return {
            "stage": str(counters.stage),
            "files_done": counters.files_done,
            "files_total": counters.files_total,
            "bytes_done": counters.bytes_done,
            "bytes_total": counters.bytes_total,
            "bytes_moved": counters.bytes_moved,
            "bytes_stored": counters.bytes_stored,
            "items_lost": counters.items_lost,
            "current": counters.current,
            "seconds": round(self.seconds, 3),
            "bytes_per_second": round(self.bytes_per_second),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
        }


class Meter:
    """Turns counters into rates."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._totals = (0, 0)
        self._grown = self._began
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])

    def read(self, counters: Counters) -> Reading:
        """Measure now."""
        now = self._clock()
        # A second's worth of looks is one sample, so that the window stays short however often it is asked.
        if now - self._samples[-1][0] >= 1.0:
            self._samples.append((now, counters.bytes_done))
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        rate = max(counters.bytes_done - before, 0) / (now - since) if now - since >= RATE_AFTER_SECONDS else 0.0
        totals = (counters.files_total, counters.bytes_total)
        if totals != self._totals:
            self._totals, self._grown = totals, now
        settled = now - self._grown >= SETTLED_AFTER_SECONDS or counters.stage in LATE_STAGES
        left = counters.bytes_total - counters.bytes_done
        return Reading(
            counters, now - self._began, rate, left / rate if settled and rate > 0 and left > 0 else None, settled
        )


def titled(title: str, counters: Counters) -> str:
    """What is being done, with the stage when it is not the main one."""
    return title if counters.stage in {"running", "finished"} else f"{title} ({counters.stage})"


def sentence(reading: Reading, *, stored: str = "stored") -> str:
    """What there is to say beside a bar, in one line.

    Args:
        reading: one look at a job.
        stored: what the job does with bytes of the store, `stored` or `fetched`.
    """
    counters = reading.counters
    parts = []
    if counters.bytes_total and reading.settled:
        parts.append(f"{size(counters.bytes_done)} of {size(counters.bytes_total)}")
    elif counters.bytes_done:
        parts.append(size(counters.bytes_done))
    if reading.bytes_per_second:
        parts.append(f"{size(reading.bytes_per_second)}/s")
    if counters.files_total and reading.settled:
        parts.append(f"{count(counters.files_done)} of {count(counters.files_total)} files")
    elif counters.files_done:
        parts.append(plural(counters.files_done, "file"))
    if counters.bytes_stored:
        parts.append(f"{stored} {size(counters.bytes_stored)}")
    if counters.items_lost:
        parts.append(f"lost {count(counters.items_lost)}")
    return ", ".join(parts)


class Display(Protocol):
    """What a running job is shown on."""

    def update(self, counters: Counters) -> None:
        """Look at the counters; called about ten times a second."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; harmless when repeated."""
        ...


class SilentDisplay:
    """Shows nothing."""

    def update(self, counters: Counters) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LineDisplay:
    """A line every ten seconds, for logs."""

    def __init__(
        self, title: str, write: Callable[[str], None], clock: Callable[[], float], *, stored: str = "stored"
    ) -> None:
        self._title, self._write, self._clock, self._stored = title, write, clock, stored
        self._meter = Meter(clock)
        self._next = clock() + LINE_EVERY_SECONDS

    def update(self, counters: Counters) -> None:
        """Write a line when one is due."""
        reading = self._meter.read(counters)
        now = self._clock()
        if now < self._next:
            return
        self._next = now + LINE_EVERY_SECONDS
        left = f", {duration(reading.eta_seconds)} left" if reading.eta_seconds is not None else ""
        said = sentence(reading, stored=self._stored) or f"nothing yet after {duration(reading.seconds)}"
        share = f"{reading.fraction:.0%}, " if reading.settled else ""
        self._write(printable(f"{titled(self._title, counters)}: {share}{said}{left}"))

    def close(self) -> None:
        """Do nothing."""


class JsonDisplay:
    """A JSON line every second, and none twice."""

    def __init__(self, emit: Callable[[dict[str, object]], None], clock: Callable[[], float]) -> None:
        self._emit, self._clock = emit, clock
        self._meter = Meter(clock)
        self._next = clock()

    def update(self, counters: Counters) -> None:
        """Emit when it is due."""
        reading = self._meter.read(counters)
        now = self._clock()
        if now >= self._next:
            self._next = now + JSON_EVERY_SECONDS
            self._emit(reading.fields())

    def close(self) -> None:
        """Do nothing."""
