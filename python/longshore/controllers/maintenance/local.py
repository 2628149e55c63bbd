"""Runs on threads of the server itself: where there is no Deployment from which a Job could be made, or where an operator wants no Jobs.

Promises: one run of a repository at a time; a run that is told to stop, or whose server stops, cancels its job and leaves the repository as every crash does,
in a state that the next run goes on from. Runs that nobody has recorded yet are lost with the process; then they are due still.

It does not know when a run is due.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from longshore.api.model import JsonObject
from longshore.controllers.maintenance.ledger import Operation, Outcome
from longshore.controllers.maintenance.operation import Opener, perform
from longshore.controllers.maintenance.runs import Run, RunState
from longshore.controllers.maintenance.settings import JobSettings
from longshore.controllers.maintenance.shown import mark_of
from longshore.kube.clock import SYSTEM_CLOCK, Clock

__all__ = ["LocalRunner"]


@dataclass(slots=True)
class _Held:
    run: Run
    stop: threading.Event
    thread: threading.Thread


class LocalRunner:
    """Fits :class:`longshore.controllers.maintenance.runs.Runner`; a component for the manager, because its runs must end with the process."""

    def __init__(self, opener: Opener, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Prepare; nothing runs yet."""
        self.name = "maintenance"
        self._opener = opener
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[tuple[str, int], _Held] = {}

    def runs(self, obj: JsonObject, *, recorded: int) -> Sequence[Run]:  # noqa: ARG002 - all are at hand
        """See :class:`longshore.controllers.maintenance.runs.Runner`."""
        mark = mark_of(obj)
        with self._lock:
            own = [held.run for (of, _), held in self._held.items() if of == mark]
        return sorted(own, key=lambda run: run.number)

    def begin(self, obj: JsonObject, *, operation: Operation, number: int, settings: JobSettings) -> str:
        """See :class:`longshore.controllers.maintenance.runs.Runner`."""
        spec, key = obj["spec"], (mark_of(obj), number)
        name = f"in the server, run {number}"
        run = Run(name=name, number=number, operation=operation, state=RunState.WORKING, share=settings.share)
        stop = threading.Event()

        def work() -> None:
            outcome = perform(
                operation,
                opener=self._opener,
                location=str(spec.get("backupStorageLocation") or ""),
                namespace=str(spec.get("volumeNamespace") or ""),
                stop=stop,
                share=settings.share,
                limit_upload=settings.limit_upload,
                limit_download=settings.limit_download,
                max_repack=settings.max_repack,
                fence_after=settings.fence_after,
                clock=self._clock,
            )
            self._end(key, outcome)

        thread = threading.Thread(target=work, name=f"maintenance-{number}", daemon=True)
        with self._lock:
            if key in self._held:
                return name
            self._held[key] = _Held(run, stop, thread)
        thread.start()
        return name

    def remove(self, obj: JsonObject, run: Run) -> None:
        """See :class:`longshore.controllers.maintenance.runs.Runner`."""
        with self._lock:
            held = self._held.pop((mark_of(obj), run.number), None)
        if held is not None:
            held.stop.set()

    def _end(self, key: tuple[str, int], outcome: Outcome) -> None:
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                held.run = replace(held.run, state=RunState.ENDED, outcome=outcome)

    # -- as a component ----------------------------------------------------------------------------------------------------------

    def start(self, *, failed: Callable[[BaseException], None]) -> None:
        """Nothing to begin."""

    def stop(self, *, timeout_seconds: float, clean: bool = True) -> bool:  # noqa: ARG002 - nothing is given back
        """End all runs."""
        with self._lock:
            held = list(self._held.values())
        for one in held:
            one.stop.set()
        ends = self._clock.monotonic() + timeout_seconds
        for one in held:
            one.thread.join(max(0.0, ends - self._clock.monotonic()))
        return not any(one.thread.is_alive() for one in held)

    def not_ready(self) -> str | None:
        """Never a reason."""
        return None

    def not_live(self) -> str | None:
        """Never a reason: a run may take long."""
        return None
