"""Time that moves only when told to, for tests of everything that takes a :class:`longshore.kube.clock.Clock`.

Threads that wait are real: they look again at least every few milliseconds of true time, so that an `advance` is seen wherever it comes in between.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from threading import Condition, Event, Lock
from typing import Final

__all__ = ["ManualClock"]

_LOOK_SECONDS: Final = 0.005


class ManualClock:
    """A clock whose hands are moved by `advance`."""

    def __init__(self, *, start: datetime | None = None) -> None:
        """Begin at a wall time; monotonic time begins at 1,000 s."""
        self._start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC) if start is None else start
        self._passed = 0.0
        self._lock = Lock()
        self.waits: list[float] = []
        """How long `wait` was asked to wait, in order; for tests of backoff."""

    def monotonic(self) -> float:
        """Seconds, moved by hand."""
        with self._lock:
            return 1_000.0 + self._passed

    def now(self) -> datetime:
        """Wall time, moved by hand."""
        with self._lock:
            return self._start + timedelta(seconds=self._passed)

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        with self._lock:
            self._passed += seconds

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait until the event is set or `advance` has moved time far enough."""
        ends = self.monotonic() + seconds
        with self._lock:
            self.waits.append(seconds)
        while not event.is_set():
            if self.monotonic() >= ends:
                return event.is_set()
            event.wait(_LOOK_SECONDS)
        return True

    def wait_for_notice(self, condition: Condition, seconds: float | None) -> None:
        """Wait a moment of true time; the caller looks again at what it waits for."""
        if seconds is None or seconds > 0.0:
            condition.wait(_LOOK_SECONDS)
        else:
            time.sleep(0)
