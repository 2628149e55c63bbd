"""A running job, as its owner sees it.

Polling is how one learns of it: it never calls. Its owner keeps the handle: a job whose handle is gone is cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from longshore import _native
from longshore.datapath.enginelog import forward
from longshore.datapath.results import Progress, adopt

__all__ = ["Job"]

T = TypeVar("T")
_SLICE_SECONDS: Final = 0.5


class Job(Generic[T]):
    """A backup, restore, check or prune that runs on threads of the engine."""

    __slots__ = ("__weakref__", "_finish", "_native")

    def __init__(self, native: _native.Job, finish: Callable[[object], T]) -> None:
        self._native = native
        self._finish = finish

    def progress(self) -> Progress:
        """Give the counters as they are now; cheap."""
        forward()
        return adopt(Progress, self._native.progress())

    def cancel(self) -> None:
        """Ask it to stop; it ends with CancelledError unless it was done. A backup that was cancelled left no snapshot."""
        self._native.cancel()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait for its end.

        Args:
            timeout_seconds: how long at most; None for as long as it takes.

        Returns:
            True when it is over.

        Raises:
            KeyboardInterrupt: on Ctrl-C, in the main thread; the job runs on.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            over = self._native.wait(max(0.0, min(_SLICE_SECONDS, left)))
            forward()
            if over or left <= 0:
                return over

    def result(self) -> T:
        """Give what it ended with, waiting for its end; may be asked again.

        Raises:
            LongshoreError: why it came to nothing, by class.
        """
        self.wait()
        return self._finish(self._native.result())

    def __repr__(self) -> str:
        return f"Job(stage={self._native.progress().stage})"
