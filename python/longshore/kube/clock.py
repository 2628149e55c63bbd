"""Time and chance as arguments.

Whoever waits, backs off or compares ages takes a :class:`Clock`, so that a test moves time by hand. Only `monotonic` may decide anything; `now` is for what
people read. :class:`longshore.kube.fake.clock.ManualClock` is the other implementation.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from threading import Condition, Event
from typing import Final, Protocol

__all__ = ["SYSTEM_CLOCK", "Backoff", "Clock", "SystemClock", "format_micro_time", "format_time"]


class Clock(Protocol):
    """Where time comes from and how to let it pass."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def now(self) -> datetime:
        """Wall time in UTC."""
        ...

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait until the event is set or the time has passed; tell whether it is set."""
        ...

    def wait_for_notice(self, condition: Condition, seconds: float | None) -> None:
        """Wait on a held condition, at most so long; may return early for no reason."""
        ...


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """Seconds since some moment, a suspended machine's sleep included: a lease lapses for the others while we sleep."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        """Wall time in UTC."""
        return datetime.now(UTC)

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait for the event, at most so many seconds."""
        return event.wait(max(0.0, seconds))

    def wait_for_notice(self, condition: Condition, seconds: float | None) -> None:
        """Wait on the condition."""
        condition.wait(seconds if seconds is None else max(0.0, seconds))


SYSTEM_CLOCK: Final = SystemClock()


class Backoff:
    """Delays that double with jitter from `initial` to `maximum`, and start anew after a quiet while.

    The figures are those of client-go's reflector: 0.8 s to 30 s, factor 2, up to the same again as jitter, forgotten after two minutes without a failure.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        initial_seconds: float = 0.8,
        maximum_seconds: float = 30.0,
        reset_after_seconds: float = 120.0,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._initial_seconds = initial_seconds
        self._maximum_seconds = maximum_seconds
        self._reset_after_seconds = reset_after_seconds
        self._failures = 0
        self._last: float | None = None

    def next_seconds(self) -> float:
        """Count a failure and say how long to wait: never above `maximum_seconds`, never below half the step."""
        now = self._clock.monotonic()
        if self._last is not None and now - self._last > self._reset_after_seconds:
            self._failures = 0
        self._last = now
        step = min(self._maximum_seconds, self._initial_seconds * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return min(self._maximum_seconds, step * self._rng.uniform(0.75, 1.5))

    def reset(self) -> None:
        """Forget all failures."""
        self._failures = 0
        self._last = None


def format_time(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as `metav1.Time` is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """RFC 3339 with microseconds, as `metav1.MicroTime` is written."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
