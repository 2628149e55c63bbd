"""Starts everything a process runs, stops it in order, and answers the kubelet's probes.

Order matters in both directions. Start: components as they were added (metrics server, lease), informers, controllers. Stop: controllers first, so that no
handler runs without its caches; then informers; then components, the last added first, so that a lease is given back only after all work that it guards has
ended.

A component that fails fatally (a lost lease, a port that is taken) ends the whole process in order: `run` stops everything and raises that error. Half a
process is worse than none, because the kubelet restarts only what is gone.

Probes: *ready* when every cache has synced; never because a bucket is bad, which would take every node out of service. *Live* when every thread that must
move does; an API server that is away makes nobody dead, for a restart would help nobody and would kill running backups.

It does not know what the components are for, nor signals: whoever owns the process sets the stop event.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from longshore.errors import InternalError, LongshoreError, UsageError
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.informer import Informer
from longshore.logs import get_logger
from longshore.runtime.controller import Controller

__all__ = ["Answer", "Component", "Manager", "Runnable"]

_log = get_logger(__name__)

_GRACE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe is told."""

    reasons: Mapping[str, str] = field(default_factory=dict)
    """Name of what is not well → why; empty when all is."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.reasons

    def text(self) -> str:
        """One line for a probe's body."""
        return "ok" if self.ok else "; ".join(f"{name}: {reason}" for name, reason in sorted(self.reasons.items()))


class Component(Protocol):
    """A part with a life of its own, such as a lease or a metrics server."""

    name: str

    def start(self, *, failed: Callable[[BaseException], None]) -> None:
        """Begin and return; `failed` may be called later, once, from any thread, to end the process."""
        ...

    def stop(self, *, timeout_seconds: float, clean: bool) -> bool:
        """End and tell whether it ended in time.

        Args:
            clean: whether everything that leans on this part has ended; only then may a lease be given back.
        """
        ...

    def not_ready(self) -> str | None:
        """Why it is not ready, None when it is."""
        ...

    def not_live(self) -> str | None:
        """Why it should be restarted, None when it should not."""
        ...


class Runnable:
    """A function as a component: it runs in a thread until the event that it is given is set; returning earlier is a failure, and so is raising."""

    def __init__(self, name: str, run: Callable[[threading.Event], None]) -> None:
        self.name = name
        self._run = run
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, *, failed: Callable[[BaseException], None]) -> None:
        """Start the thread."""

        def body() -> None:
            try:
                self._run(self._stop)
            except BaseException as err:  # noqa: BLE001 - handed on, not swallowed
                failed(err)
                return
            if not self._stop.is_set():
                failed(InternalError(f"a part of the process ended by itself: name={self.name}"))

        self._thread = threading.Thread(target=body, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, *, timeout_seconds: float, clean: bool) -> bool:  # noqa: ARG002 - a function has nothing to give back
        """Set the event and wait."""
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def not_ready(self) -> str | None:
        """Always ready: a function has nothing to say about itself."""
        return None

    def not_live(self) -> str | None:
        """Dead when its thread is."""
        return (
            "thread ended"
            if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()
            else None
        )


class Manager:
    """Owns informers, controllers and components of one process."""

    def __init__(
        self, *, stop: threading.Event | None = None, clock: Clock = SYSTEM_CLOCK, grace_seconds: float = _GRACE_SECONDS
    ) -> None:
        """Make an empty manager.

        Args:
            stop: set by the owner of the process (SIGTERM) to end everything in order.
            grace_seconds: how long running handlers may take to end.
        """
        self.stop: Final = threading.Event() if stop is None else stop
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._components: list[Component] = []
        self._informers: list[Informer] = []
        self._controllers: list[tuple[Controller, int]] = []
        self._controller_threads: list[threading.Thread] = []
        self._controllers_stop = threading.Event()
        self._late: set[str] = set()
        self._lock = threading.Lock()
        self._fatal: BaseException | None = None
        self._started = False

    @property
    def informers(self) -> tuple[Informer, ...]:
        """The informers added so far, for metrics."""
        return tuple(self._informers)

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """The controllers added so far, for metrics."""
        return tuple(controller for controller, _workers in self._controllers)

    def add_component(self, component: Component) -> None:
        """Have a component started and stopped; before `start`."""
        self._must_not_run()
        self._components.append(component)

    def add_informer(self, informer: Informer) -> Informer:
        """Have an informer started and stopped; before `start`."""
        self._must_not_run()
        if informer not in self._informers:
            self._informers.append(informer)
        return informer

    def add_controller(self, controller: Controller, *, workers: int = 1) -> Controller:
        """Have a controller run with so many workers; before `start`."""
        self._must_not_run()
        self._controllers.append((controller, workers))
        return controller

    def fail(self, error: BaseException) -> None:
        """End the process in order with this error; the first one counts."""
        with self._lock:
            if self._fatal is None:
                self._fatal = error
        self.stop.set()

    def run(self) -> None:
        """Start, wait for the stop event, stop; blocks.

        Raises:
            BaseException: what a component failed with.
        """
        try:
            self.start()
            self.stop.wait()
        finally:
            self.shut_down()
        if self._fatal is not None:
            raise self._fatal

    def start(self) -> None:
        """Start everything and return."""
        self._must_not_run()
        self._started = True
        for component in self._components:
            component.start(failed=lambda err, name=component.name: self._component_failed(name, err))  # type: ignore[misc]  # bound now, not at the call
        for informer in self._informers:
            informer.start()
        for controller, workers in self._controllers:
            thread = threading.Thread(
                target=self._run_controller,
                args=(controller, workers),
                name=f"{controller.name}-controller",
                daemon=True,
            )
            self._controller_threads.append(thread)
            thread.start()

    def shut_down(self) -> bool:
        """Stop everything in order.

        Returns:
            Whether all of it had ended in time; what had not is logged by name.
        """
        self.stop.set()
        self._controllers_stop.set()
        ends = self._clock.monotonic() + self._grace_seconds
        late = set()
        for thread in self._controller_threads:
            thread.join(max(0.0, ends - self._clock.monotonic()) + 1.0)
            if thread.is_alive():
                late.add(thread.name)
        late |= self._late
        for informer in self._informers:
            if not informer.stop():
                late.add(f"informer {informer.resource}")
        for component in reversed(self._components):
            if not component.stop(timeout_seconds=max(1.0, ends - self._clock.monotonic()), clean=not late):
                late.add(component.name)
        if late:
            _log.warning("Some parts did not end in time", names=sorted(late))
        return not late

    def ready(self) -> Answer:
        """Whether the process can do its work now."""
        reasons = {
            component.name: reason for component in self._components if (reason := component.not_ready()) is not None
        }
        if not self._started:
            reasons["manager"] = "not started"
        if self.stop.is_set():
            reasons["manager"] = "stopping"
        for informer in self._informers:
            if not informer.has_synced():
                error = informer.last_error()
                reasons[f"informer {informer.resource}"] = "not synced" if error is None else f"not synced: {error}"
        return Answer(reasons)

    def live(self) -> Answer:
        """Whether the process should be left running."""
        if not self._started or self.stop.is_set():
            return Answer()
        reasons = {
            component.name: reason for component in self._components if (reason := component.not_live()) is not None
        }
        for informer in self._informers:
            if not informer.is_alive():
                reasons[f"informer {informer.resource}"] = "does not move"
        for controller, _workers in self._controllers:
            if not controller.is_alive():
                reasons[f"controller {controller.name}"] = "a worker ended"
        return Answer(reasons)

    def _run_controller(self, controller: Controller, workers: int) -> None:
        try:
            if not controller.run(self._controllers_stop, workers=workers, grace_seconds=self._grace_seconds):
                self._late.add(f"controller {controller.name}")
        except BaseException as err:  # noqa: BLE001 - handed on to whoever runs the manager
            self._component_failed(controller.name, err)

    def _component_failed(self, name: str, err: BaseException) -> None:
        if self.stop.is_set():
            _log.info("Part failed while stopping", name=name, error=err)
            return
        known = isinstance(err, LongshoreError)
        _log.error("Part failed, stopping the process", name=name, error=err, exc_info=None if known else err)
        self.fail(err)

    def _must_not_run(self) -> None:
        if self._started:
            raise UsageError("the manager was started already")
