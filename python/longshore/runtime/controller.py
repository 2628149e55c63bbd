"""The loop that every controller shares: a queue of keys, workers, a sync handler, and a resync that sweeps everything from time to time.

A handler is given a key and reads the state afresh; it must give the same result after a restart, after ten calls or one. What it says decides what happens:

==================================  =============================================================================================
it returns None                     done; its backoff starts anew
it returns ``Requeue(seconds)``     done for now, again after that time; its backoff starts anew
it raises TerminalError             logged; not tried again until the object changes or the resync comes
it raises TooManyRequestsError      again after the longer of its backoff and Retry-After
it raises a retryable error         again after its backoff; a conflict is no news and is logged at debug
it raises anything else             logged with its traceback; again after its backoff
==================================  =============================================================================================

No exception ends a worker. Denied and invalid requests are tried again too (slowly, at most every 30 s): an operator mends rights while we run, and an object
that nobody looks at again would stay where it is for ever. Only the handler's author can know that trying is pointless, and says so with TerminalError.

The resync function runs once when the caches have synced, then after each period; it usually adds every key to the queue.

It does not know what it controls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from longshore.errors import (
    ConflictError,
    LongshoreError,
    NotReadyError,
    TerminalError,
    TooManyRequestsError,
    UsageError,
)
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.resource import JsonObject, object_key
from longshore.logs import get_logger
from longshore.runtime.queue import Queue

__all__ = ["Controller", "EnqueueKeys", "Requeue", "ResyncFunction", "SyncHandler"]

_log = get_logger(__name__)

_CACHE_POLL_SECONDS: Final = 0.05
_SLOW_SYNC_LOG_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Requeue:
    """What a handler returns to be called again for the same key."""

    after_seconds: float


SyncHandler = Callable[[str], Requeue | None]
ResyncFunction = Callable[[], None]


class Controller:
    """A queue and its workers; see the module's text."""

    def __init__(
        self,
        name: str,
        *,
        sync: SyncHandler | None = None,
        resync: ResyncFunction | None = None,
        resync_period_seconds: float = 0.0,
        cache_sync_waiters: Sequence[Callable[[], bool]] = (),
        cache_sync_timeout_seconds: float | None = None,
        queue: Queue[str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare; nothing runs before `run`.

        Args:
            name: for logs, metrics and probes.
            sync: works on one key.
            resync: sweeps; needs a period.
            cache_sync_waiters: each tells whether a cache has synced; no key is worked on before all have.
            cache_sync_timeout_seconds: how long to wait for them; None waits until stopped.

        Raises:
            UsageError: neither sync nor resync, or a resync without a period: a mistake of the program.
        """
        if sync is None and resync is None:
            raise UsageError(f"a controller needs a sync handler or a resync function: controller={name}")
        if resync is not None and resync_period_seconds <= 0.0:
            raise UsageError(
                f"a resync function needs a period: controller={name}, period_seconds={resync_period_seconds}"
            )
        self.name: Final = name
        self.queue: Final[Queue[str]] = Queue(name, clock=clock) if queue is None else queue
        self._sync = sync
        self._resync = resync
        self._resync_period_seconds = resync_period_seconds
        self._cache_sync_waiters = tuple(cache_sync_waiters)
        self._cache_sync_timeout_seconds = cache_sync_timeout_seconds
        self._clock = clock
        self._synced = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running = False

    def enqueue(self, obj: JsonObject) -> None:
        """Have this object's key worked on."""
        self.queue.add(object_key(obj))

    def has_synced(self) -> bool:
        """Whether the caches were seen synced and work has begun."""
        return self._synced.is_set()

    def is_alive(self) -> bool:
        """Whether every worker's thread lives; true as well before the start and after an ordered end."""
        return not self._running or all(thread.is_alive() for thread in self._threads)

    def run(self, stop: threading.Event, *, workers: int = 1, grace_seconds: float = 30.0) -> bool:
        """Work until `stop` is set; blocks.

        Args:
            workers: how many keys are worked on at once.
            grace_seconds: how long to wait for handlers that are under way when the stop comes.

        Returns:
            Whether all workers had ended in time.

        Raises:
            NotReadyError: the caches did not sync in time.
        """
        try:
            if not self._wait_for_caches(stop):
                return True
            self._synced.set()
            if self._sync is not None:
                self._threads = [
                    threading.Thread(target=self._work, args=(stop,), name=f"{self.name}-worker-{number}", daemon=True)
                    for number in range(workers)
                ]
            if self._resync is not None:
                self._threads.append(
                    threading.Thread(target=self._sweep, args=(stop,), name=f"{self.name}-resync", daemon=True)
                )
            for thread in self._threads:
                thread.start()
            self._running = True
            _log.info("Started controller", controller=self.name, workers=workers)
            stop.wait()
        finally:
            self._running = False
            self.queue.shut_down()
        ends = self._clock.monotonic() + grace_seconds
        for thread in self._threads:
            thread.join(max(0.0, ends - self._clock.monotonic()))
        late = [thread.name for thread in self._threads if thread.is_alive()]
        _log.info("Stopped controller", controller=self.name, late_workers=late)
        return not late

    def process_next(self, *, timeout_seconds: float = 0.0) -> bool:
        """Work on one item in the calling thread, as a worker would; for tests that want no threads.

        Returns:
            Whether there was an item.
        """
        key = self.queue.get(timeout_seconds=timeout_seconds)
        if key is None:
            return False
        self._process(key)
        return True

    def _wait_for_caches(self, stop: threading.Event) -> bool:
        began = self._clock.monotonic()
        told = began
        while not all(waiter() for waiter in self._cache_sync_waiters):
            now = self._clock.monotonic()
            if self._cache_sync_timeout_seconds is not None and now - began >= self._cache_sync_timeout_seconds:
                raise NotReadyError(
                    f"caches did not sync in time: controller={self.name}, seconds={now - began:.0f}",
                    "check that the API server can be reached",
                )
            if now - told >= _SLOW_SYNC_LOG_SECONDS:
                told = now
                _log.info("Waiting for caches to sync", controller=self.name, seconds=round(now - began))
            if self._clock.wait(stop, _CACHE_POLL_SECONDS):
                return False
        return not stop.is_set()

    def _work(self, stop: threading.Event) -> None:
        while True:
            key = self.queue.get()
            if key is None:
                return
            if stop.is_set():
                # Not begun after the stop: the next start finds it in the informer's first list.
                self.queue.done(key)
                continue
            self._process(key)

    def _process(self, key: str) -> None:
        sync = self._sync
        try:
            outcome = None if sync is None else sync(key)
        except BaseException as err:  # noqa: BLE001 - a panic of the extension derives from BaseException, and a worker must outlive that too
            self._retry(key, err)
        else:
            self.queue.forget(key)
            if outcome is not None:
                self.queue.add_after(key, outcome.after_seconds)
        finally:
            self.queue.done(key)

    def _retry(self, key: str, err: BaseException) -> None:
        if isinstance(err, TerminalError):
            self.queue.forget(key)
            _log.error("Gave up on object", controller=self.name, key=key, error=err, next_step=err.next_step)
            return
        at_least = err.retry_after_seconds if isinstance(err, TooManyRequestsError) else 0.0
        seconds = self.queue.add_rate_limited(key, at_least_seconds=at_least)
        fields = {
            "controller": self.name,
            "key": key,
            "error": err,
            "again_in_seconds": round(seconds, 3),
            "failures": self.queue.failures(key),
        }
        if isinstance(err, ConflictError):
            _log.debug("Object was changed in between", **fields)
        elif isinstance(err, LongshoreError):
            _log.warning("Handler failed", **fields, next_step=err.next_step)
        else:
            _log.error("Handler crashed", **fields, exc_info=err)

    def _sweep(self, stop: threading.Event) -> None:
        resync = self._resync
        while resync is not None and not stop.is_set():
            try:
                resync()
            except BaseException as err:  # noqa: BLE001 - as in _process
                _log.error(
                    "Resync failed",
                    controller=self.name,
                    error=err,
                    exc_info=None if isinstance(err, LongshoreError) else err,
                )
            if self._clock.wait(stop, self._resync_period_seconds):
                return


class EnqueueKeys:
    """An informer's handler that puts keys into a controller's queue; by default the object's own key."""

    def __init__(self, queue: Queue[str], *, keys_of: Callable[[JsonObject], Iterable[str]] | None = None) -> None:
        """Make a handler.

        Args:
            keys_of: for objects that concern others, e.g. a pod and the restores that wait for it; gives any number of keys.
        """
        self._queue = queue
        self._keys_of = (lambda obj: (object_key(obj),)) if keys_of is None else keys_of

    def on_add(self, obj: JsonObject) -> None:
        """Add the keys of a new object."""
        self._add(obj)

    def on_update(self, old: JsonObject, new: JsonObject) -> None:
        """Add the keys of both states: a change may have moved the object away from one key."""
        self._add(old)
        self._add(new)

    def on_delete(self, obj: JsonObject, *, final_state_unknown: bool) -> None:  # noqa: ARG002 - the handler's shape
        """Add the keys of a vanished object; the sync handler finds it gone."""
        self._add(obj)

    def _add(self, obj: JsonObject) -> None:
        for key in self._keys_of(obj):
            self._queue.add(key)
