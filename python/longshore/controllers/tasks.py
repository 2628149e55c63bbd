"""The work of one object on a thread of its own: open the repository, run the job, keep the outcome until somebody has written it down.

Why not in the controller's worker: opening a repository waits for a store that may not answer, a job takes hours, and meanwhile the object may be cancelled
or deleted. The worker looks, decides and goes; a task waits.

Promises
- At most so many tasks run at once, whatever kind they are of. A place is reserved before an object is claimed, so that nothing is claimed that has to wait.
- One task for each object. A task that ended stays, with its outcome, until it is dropped: an outcome is lost only with the process.
- An interruption reaches the job at once, and a job that is not begun yet never begins. The first interruption counts; a lost lease or a shutdown overrides
  a cancellation, because after them nothing may be written.
- `wait_idle` tells whether every thread has ended, `wait_interrupted` whether every one that was told to stop has; after a lost lease the process must not
  outlive a false answer of the latter.

It does not know phases, nor what the work is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

from longshore.controllers.ports import Job, Progress
from longshore.errors import CancelledError, InternalError
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.logs import get_logger

__all__ = ["Interruption", "Slot", "Task", "Tasks"]

_log = get_logger(__name__)
Result = TypeVar("Result")

_JOB_POLL_SECONDS: Final = 0.5
_WOKEN_AT_ONCE: Final = 4


class Interruption(StrEnum):
    """Why a task was told to stop."""

    CANCEL = "cancelled"
    DELETED = "deleted"
    SHUTDOWN = "shutdown"
    LEASE = "lease lost"

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be written afterwards: the next holder of the node's lease goes on with the object."""
        return self in {Interruption.SHUTDOWN, Interruption.LEASE}


class Task:
    """One thread at work for one object; see the module's text."""

    def __init__(self, key: str, *, uid: str, clock: Clock) -> None:
        self.key: Final = key
        self.uid: Final = uid
        self.began_at: Final = clock.monotonic()
        self.result: Any = None
        self.error: BaseException | None = None
        self.reported: tuple[int, int] | None = None
        """What was last written of its progress: bytes and files done."""
        self.reported_at = self.began_at
        self._clock = clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._interrupted = threading.Event()
        self._interruption: Interruption | None = None
        self._job: Job[Any] | None = None

    # -- seen from the controller ----------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the thread has done everything; `result` or `error` is set."""
        return self._over.is_set()

    @property
    def interruption(self) -> Interruption | None:
        """Why it was told to stop; None when it was not."""
        return self._interruption

    def interrupt(self, reason: Interruption) -> None:
        """Tell it to stop; it ends soon."""
        with self._lock:
            if self._interruption is None or reason.is_silent:
                self._interruption = reason
            self._interrupted.set()
            job = self._job
        if job is not None:
            job.cancel()

    def progress(self) -> Progress | None:
        """How far its job is; None when there is none yet."""
        job = self._job
        return None if job is None else job.progress()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for its end."""
        return self._over.wait(timeout_seconds)

    # -- seen from the work ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Stop here if it was told to.

        Raises:
            CancelledError: it was.
        """
        if self._interrupted.is_set():
            raise CancelledError(f"the work was stopped: reason={self._interruption}")

    def run(self, begin: Callable[[], Job[Result]]) -> Result:
        """Begin a job and wait for its result, passing on an interruption.

        Raises:
            CancelledError: interrupted before or while it ran.
            LongshoreError: what the job raises.
        """
        self.check()
        job = begin()
        with self._lock:
            self._job = job
            stop_now = self._interrupted.is_set()
        if stop_now:
            job.cancel()
        while not job.wait(_JOB_POLL_SECONDS):
            pass
        return job.result()

    def _end(self) -> None:
        self._over.set()


class Slot:
    """A reserved place among the running tasks; start a task in it or give it back."""

    def __init__(self, owner: Tasks, key: tuple[str, str]) -> None:
        self._owner = owner
        self._key = key
        self._open = True

    def release(self) -> None:
        """Give it back; nothing happens when a task was started in it."""
        if self._open:
            self._open = False
            self._owner._release()

    def start(self, *, uid: str, work: Callable[[Task], Any], on_end: Callable[[], None]) -> Task:
        """Start the work.

        Args:
            uid: of the object.
            work: runs in the thread; what it returns or raises is kept.
            on_end: called after the outcome is there, e.g. to have the object looked at.
        """
        self._open = False
        return self._owner._start(self._key, uid=uid, work=work, on_end=on_end)


class Tasks:
    """All tasks of a process; a component for the manager."""

    def __init__(self, *, concurrency: int, clock: Clock = SYSTEM_CLOCK) -> None:
        """Make an empty set.

        Args:
            concurrency: how many run at once.
        """
        self.name = "tasks"
        self.concurrency: Final = concurrency
        self._clock = clock
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._tasks: dict[tuple[str, str], Task] = {}
        self._taken = 0
        self._running = 0
        self._closed = False
        self._waiting: OrderedDict[tuple[str, str], Callable[[], None]] = OrderedDict()

    def get(self, kind: str, key: str) -> Task | None:
        """The task of an object, running or ended."""
        with self._lock:
            return self._tasks.get((kind, key))

    def drop(self, kind: str, key: str) -> None:
        """Forget an ended task: its outcome was written, or is nobody's."""
        with self._lock:
            task = self._tasks.get((kind, key))
            if task is not None and task.is_over:
                del self._tasks[kind, key]

    def running(self) -> int:
        """How many threads are at work."""
        with self._lock:
            return self._running

    def at_work(self) -> list[tuple[str, str, Task]]:
        """All that work now: kind and key of the object, and the task."""
        with self._lock:
            return [(kind, key, task) for (kind, key), task in self._tasks.items() if not task.is_over]

    def waiting(self) -> int:
        """How many objects wait for a place."""
        with self._lock:
            return len(self._waiting)

    def reserve(self, kind: str, key: str, *, wake: Callable[[], None]) -> Slot | None:
        """Reserve a place.

        Args:
            wake: called once when a place may be free, if there was none.

        Returns:
            None when all are taken, the object has a task already, or the process is stopping.
        """
        with self._lock:
            if self._closed or (kind, key) in self._tasks:
                return None
            if self._taken >= self.concurrency:
                self._waiting.setdefault((kind, key), wake)
                return None
            self._taken += 1
            self._waiting.pop((kind, key), None)
        return Slot(self, (kind, key))

    def interrupt_all(self, reason: Interruption) -> None:
        """Tell all of them to stop."""
        with self._lock:
            tasks = [task for task in self._tasks.values() if not task.is_over]
        for task in tasks:
            task.interrupt(reason)

    def wait_idle(self, *, timeout_seconds: float) -> bool:
        """Wait until no thread is at work; tell whether that came true in time."""
        ends = self._clock.monotonic() + timeout_seconds
        with self._idle:
            while self._running:
                left = ends - self._clock.monotonic()
                if left <= 0.0:
                    return False
                self._clock.wait_for_notice(self._idle, left)
            return True

    def wait_interrupted(self, *, timeout_seconds: float) -> bool:
        """Wait until no thread is at work that was told to stop; tell whether that came true in time. Work that began since does not count."""
        ends = self._clock.monotonic() + timeout_seconds
        with self._idle:
            while any(not task.is_over and task.interruption is not None for task in self._tasks.values()):
                left = ends - self._clock.monotonic()
                if left <= 0.0:
                    return False
                self._clock.wait_for_notice(self._idle, left)
            return True

    # -- as a component --------------------------------------------------------------------------------------------------------

    def start(self, *, failed: Callable[[BaseException], None]) -> None:
        """Nothing to start."""

    def stop(self, *, timeout_seconds: float, clean: bool = True) -> bool:  # noqa: ARG002 - nothing is given back here
        """Take no more, stop what runs, and wait for it. The objects stay InProgress for the next instance."""
        with self._lock:
            self._closed = True
        self.interrupt_all(Interruption.SHUTDOWN)
        ended = self.wait_idle(timeout_seconds=timeout_seconds)
        if not ended:
            _log.warning("Some jobs did not stop in time", running=self.running())
        return ended

    def not_ready(self) -> str | None:
        """Never a reason."""
        return None

    def not_live(self) -> str | None:
        """Never a reason: a long job is no dead one."""
        return None

    # -- for slots -------------------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        with self._lock:
            self._taken -= 1
            woken = [self._waiting.popitem(last=False)[1] for _ in range(min(_WOKEN_AT_ONCE, len(self._waiting)))]
        for wake in woken:
            wake()

    def _start(
        self, key: tuple[str, str], *, uid: str, work: Callable[[Task], Any], on_end: Callable[[], None]
    ) -> Task:
        task = Task(key[1], uid=uid, clock=self._clock)

        def body() -> None:
            try:
                task.result = work(task)
            except BaseException as err:  # noqa: BLE001 - kept as the outcome; a panic of the extension derives from BaseException
                task.error = err
            finally:
                if task.error is None and task.result is None:
                    task.error = InternalError(f"the work ended without a result: object={key[1]}")
                task._end()
                with self._idle:
                    self._running -= 1
                    self._idle.notify_all()
                self._release()
                on_end()

        with self._lock:
            if self._closed:
                task._interruption = Interruption.SHUTDOWN
                task._interrupted.set()
            self._tasks[key] = task
            self._running += 1
        threading.Thread(target=body, name=f"{key[0]}-{key[1]}", daemon=True).start()
        return task
