"""What a handler says decides what happens next; no exception ends a worker; caches come first."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import pytest

from longshore.errors import (
    ApiDeniedError,
    ConflictError,
    NotReadyError,
    TerminalError,
    TooManyRequestsError,
    UsageError,
)
from longshore.kube.fake import ManualClock
from longshore.runtime.controller import Controller, EnqueueKeys, Requeue


def until(true: Callable[[], Any], *, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true in time"
        time.sleep(0.002)


class PanicError(BaseException):
    """As a panic of the extension: no Exception."""


def outcome(say: Callable[[], Any], *, failures_before: int = 0) -> tuple[Controller, ManualClock]:
    """A controller that has worked once on the key `ns/a`."""
    clock = ManualClock()

    def sync(_key: str) -> Requeue | None:
        answer: Requeue | None = say()
        return answer

    controller = Controller("test", sync=sync, clock=clock)
    for _ in range(failures_before):
        controller.queue.add_rate_limited("ns/a")
    clock.advance(60)
    controller.queue.add("ns/a")
    while controller.process_next():
        pass
    return controller, clock


def fail(error: BaseException) -> Callable[[], Any]:
    def say() -> None:
        raise error

    return say


def comes_back_after(controller: Controller, clock: ManualClock) -> float | None:
    """Seconds until the key is there again, to a millisecond; None when it is not within two minutes."""
    for step in range(120_000):
        if len(controller.queue):
            return step / 1_000
        if step and not controller.queue._delayed:
            return None
        clock.advance(0.001)
    return None


def test_done_is_done_and_forgets_failures() -> None:
    controller, clock = outcome(lambda: None, failures_before=4)
    assert controller.queue.failures("ns/a") == 0
    assert comes_back_after(controller, clock) is None


def test_requeue_comes_back_in_time_and_forgets_failures() -> None:
    controller, clock = outcome(lambda: Requeue(5), failures_before=4)
    assert controller.queue.failures("ns/a") == 0
    assert comes_back_after(controller, clock) == pytest.approx(5, abs=0.002)


@pytest.mark.parametrize(
    "error", [ConflictError("conflict"), ApiDeniedError("denied"), ValueError("crash"), PanicError()]
)
def test_failure_comes_back_after_its_backoff(error: BaseException) -> None:
    controller, clock = outcome(fail(error), failures_before=3)
    assert controller.queue.failures("ns/a") == 4
    assert comes_back_after(controller, clock) == pytest.approx(0.04, abs=0.002)


def test_terminal_error_is_not_tried_again() -> None:
    controller, clock = outcome(fail(TerminalError("no")), failures_before=3)
    assert controller.queue.failures("ns/a") == 0
    assert comes_back_after(controller, clock) is None


def test_retry_after_is_obeyed() -> None:
    error = TooManyRequestsError("wait")
    error.retry_after_seconds = 9
    controller, clock = outcome(fail(error))
    assert comes_back_after(controller, clock) == pytest.approx(9, abs=0.002)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"resync": lambda: None}, {"sync": lambda _key: None, "resync": lambda: None, "resync_period_seconds": 0}],
)
def test_mistakes_of_the_program_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Controller("test", **arguments)


class Running:
    """Runs a controller in a thread."""

    def __init__(self, controller: Controller, **options: Any) -> None:
        self.stop = threading.Event()
        self.controller = controller
        self.error: BaseException | None = None
        self.ended: bool | None = None
        self._thread = threading.Thread(target=self._run, kwargs=options, daemon=True)
        self._thread.start()

    def _run(self, **options: Any) -> None:
        try:
            self.ended = self.controller.run(self.stop, **options)
        except BaseException as err:
            self.error = err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_workers_outlive_every_exception() -> None:
    left = [ValueError("a"), PanicError(), SystemExit(3), ConflictError("b")]
    done = threading.Event()

    def sync(_key: str) -> None:
        if left:
            raise left.pop()
        done.set()

    controller = Controller("test", sync=sync)
    with Running(controller, workers=1):
        controller.queue.add("ns/a")
        assert done.wait(10)
        assert controller.is_alive()


def test_nothing_is_worked_on_before_all_caches_synced() -> None:
    synced = [False, False]
    worked: list[str] = []
    controller = Controller("test", sync=worked.append, cache_sync_waiters=[lambda: synced[0], lambda: synced[1]])
    with Running(controller):
        controller.queue.add("ns/a")
        synced[0] = True
        time.sleep(0.15)
        assert not worked
        assert not controller.has_synced()
        synced[1] = True
        until(lambda: worked == ["ns/a"])


def test_caches_that_never_sync_are_an_error() -> None:
    clock = ManualClock()
    controller = Controller(
        "test", sync=lambda _key: None, cache_sync_waiters=[lambda: False], cache_sync_timeout_seconds=30, clock=clock
    )
    with Running(controller) as running:
        clock.advance(31)
        until(lambda: running.error)
        assert isinstance(running.error, NotReadyError)


def test_stop_while_waiting_for_caches_ends_quietly() -> None:
    with Running(Controller("test", sync=lambda _key: None, cache_sync_waiters=[lambda: False])) as running:
        running.stop.set()
        until(lambda: running.ended is True)


def test_resync_runs_at_once_and_then_each_period_and_survives_failures() -> None:
    clock = ManualClock()
    runs: list[int] = []

    def resync() -> None:
        runs.append(len(runs))
        if len(runs) == 2:
            raise ValueError("second")

    with Running(Controller("test", resync=resync, resync_period_seconds=300, clock=clock)):
        until(lambda: len(runs) == 1)
        until(lambda: clock.waits.count(300) == 1)
        clock.advance(299)
        assert len(runs) == 1
        clock.advance(2)
        until(lambda: len(runs) == 2)
        until(lambda: clock.waits.count(300) == 2)
        clock.advance(301)
        until(lambda: len(runs) == 3)


def test_stop_waits_for_the_handler_under_way_and_starts_no_other() -> None:
    entered, leave = threading.Event(), threading.Event()
    worked: list[str] = []

    def sync(key: str) -> None:
        entered.set()
        assert leave.wait(10)
        worked.append(key)

    controller = Controller("test", sync=sync)
    with Running(controller, workers=1) as running:
        controller.queue.add("ns/a")
        assert entered.wait(10)
        controller.queue.add("ns/b")
        running.stop.set()
        time.sleep(0.05)
        assert running.ended is None
        leave.set()
        until(lambda: running.ended is True)
    assert worked == ["ns/a"]


def test_handler_that_does_not_end_is_told() -> None:
    entered, leave = threading.Event(), threading.Event()

    def sync(_key: str) -> None:
        entered.set()
        leave.wait(10)

    controller = Controller("test", sync=sync)
    with Running(controller, workers=1, grace_seconds=0.05) as running:
        controller.queue.add("ns/a")
        assert entered.wait(10)
        running.stop.set()
        until(lambda: running.ended is False)
        leave.set()


def test_one_key_is_never_with_two_workers() -> None:
    busy: set[str] = set()
    clashes: list[str] = []
    count = [0]

    def sync(key: str) -> None:
        if key in busy:
            clashes.append(key)
        busy.add(key)
        time.sleep(0.001)
        busy.discard(key)
        count[0] += 1

    controller = Controller("test", sync=sync)
    with Running(controller, workers=8):
        for _ in range(50):
            for key in ("ns/a", "ns/b"):
                controller.queue.add(key)
            time.sleep(0.001)
        until(lambda: not len(controller.queue))
    assert count[0] > 2
    assert not clashes


def test_enqueue_keys_adds_the_keys_of_both_states() -> None:
    controller = Controller("test", sync=lambda _key: None)
    handler = EnqueueKeys(controller.queue, keys_of=lambda obj: obj["wants"])
    handler.on_update({"wants": ["ns/a"]}, {"wants": ["ns/b"]})
    handler.on_add({"wants": ["ns/b", "ns/c"]})
    handler.on_delete({"wants": ["ns/d"]}, final_state_unknown=True)
    assert [controller.queue.get(timeout_seconds=0) for _ in range(4)] == ["ns/a", "ns/b", "ns/c", "ns/d"]
