"""The queue keeps client-go's promises: once, never twice at a time, nothing lost; held against a model over random histories."""

import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longshore.kube.fake import ManualClock
from longshore.runtime.queue import ItemBackoff, NoQueueMetrics, Queue, RateLimiter, TokenBucket

ITEMS = st.sampled_from("abcd")


class Model(RuleBasedStateMachine):
    """The queue against the simplest thing that could be true."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.queue: Queue[str] = Queue("model", clock=self.clock)
        self.ready: list[str] = []  # dirty and not processing, in order
        self.dirty: set[str] = set()
        self.processing: set[str] = set()
        self.delayed: dict[str, float] = {}
        self.failures: Counter[str] = Counter()
        self.down = False

    def _add(self, item: str) -> None:
        if self.down or item in self.dirty:
            return
        self.dirty.add(item)
        if item not in self.processing:
            self.ready.append(item)

    def _ripen(self) -> None:
        for item, due in sorted(self.delayed.items(), key=lambda pair: pair[1]):
            if due <= self.clock.monotonic():
                del self.delayed[item]
                self._add(item)

    def _delay(self, item: str, due: float) -> None:
        """The earlier moment counts; of those of one moment, whose was said first."""
        if self.delayed.get(item, due + 1) > due:
            self.delayed.pop(item, None)
            self.delayed[item] = due

    @rule(item=ITEMS)
    def add(self, item: str) -> None:
        self._ripen()
        len(self.queue)
        self.queue.add(item)
        self._add(item)

    @rule(item=ITEMS, tenths=st.integers(0, 50))
    def add_after(self, item: str, tenths: int) -> None:
        self._ripen()
        len(self.queue)
        self.queue.add_after(item, tenths / 10)
        due = self.clock.monotonic() + tenths / 10
        if self.down:
            return
        if tenths == 0:
            self._add(item)
        else:
            self._delay(item, due)

    @rule(item=ITEMS)
    def add_rate_limited(self, item: str) -> None:
        self._ripen()
        len(self.queue)
        seconds = self.queue.add_rate_limited(item)
        assert seconds == pytest.approx(min(30.0, 0.005 * 2 ** self.failures[item]))
        self.failures[item] += 1
        due = self.clock.monotonic() + seconds
        if not self.down:
            self._delay(item, due)

    @rule(item=ITEMS)
    def forget(self, item: str) -> None:
        self.queue.forget(item)
        self.failures[item] = 0
        assert self.queue.failures(item) == 0

    @rule()
    def get(self) -> None:
        self._ripen()
        item = self.queue.get(timeout_seconds=0)
        if not self.ready:
            assert item is None
            return
        assert item == self.ready.pop(0)
        assert item not in self.processing
        self.dirty.remove(item)
        self.processing.add(item)

    @precondition(lambda self: self.processing)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.processing)))
        self._ripen()
        len(self.queue)
        self.queue.done(item)
        self.processing.remove(item)
        if item in self.dirty:
            self.ready.append(item)

    @rule(tenths=st.integers(1, 100))
    def time_passes(self, tenths: int) -> None:
        self.clock.advance(tenths / 10)

    @precondition(lambda self: not self.down)
    @rule(chance=st.integers(0, 9))
    def shut_down(self, chance: int) -> None:
        if chance:
            return
        self._ripen()
        len(self.queue)
        self.queue.shut_down()
        self.delayed.clear()
        self.down = True

    @invariant()
    def same_length(self) -> None:
        self._ripen()
        assert len(self.queue) == len(self.ready)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_item_is_never_with_two_workers_and_nothing_is_lost() -> None:
    queue: Queue[int] = Queue("threads")
    busy: set[int] = set()
    guard = threading.Lock()
    worked: Counter[int] = Counter()
    clashes = []

    def work() -> None:
        while (item := queue.get()) is not None:
            with guard:
                if item in busy:
                    clashes.append(item)
                busy.add(item)
                worked[item] += 1
            with guard:
                busy.discard(item)
            queue.done(item)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()

    def feed() -> None:
        for number in range(3_000):
            queue.add(number % 7)

    feeders = [threading.Thread(target=feed) for _ in range(3)]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    assert queue.drain(timeout_seconds=20)
    for worker in workers:
        worker.join(10)
    assert not clashes
    assert set(worked) == set(range(7))


def test_waiting_worker_wakes_for_a_delay_that_comes_later_but_is_due_earlier() -> None:
    clock = ManualClock()
    queue: Queue[str] = Queue("delays", clock=clock)
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()), daemon=True)
    queue.add_after("late", 60)
    thread.start()
    queue.add_after("soon", 1)
    clock.advance(1)
    thread.join(10)
    assert got == ["soon"]


def test_two_workers_that_sleep_both_get_their_delayed_items() -> None:
    queue: Queue[str] = Queue("delays")
    got: list[str | None] = []
    threads = [threading.Thread(target=lambda: got.append(queue.get()), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    queue.add_after("a", 0.02)
    queue.add_after("b", 0.02)
    for thread in threads:
        thread.join(10)
    assert sorted(filter(None, got)) == ["a", "b"]


def test_item_added_while_worked_on_comes_again() -> None:
    queue: Queue[str] = Queue("again")
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    assert queue.get(timeout_seconds=0) is None
    queue.done("a")
    assert queue.get(timeout_seconds=0) == "a"


def test_drain_tells_when_it_was_not_done_in_time() -> None:
    clock = ManualClock()
    queue: Queue[str] = Queue("drain", clock=clock)
    queue.add("a")
    assert queue.get() == "a"
    answer: list[bool] = []
    thread = threading.Thread(target=lambda: answer.append(queue.drain(timeout_seconds=5)), daemon=True)
    thread.start()
    while not queue.is_shut_down():
        pass
    clock.advance(6)
    thread.join(10)
    assert answer == [False]
    queue.done("a")
    assert queue.drain(timeout_seconds=5)


def test_bucket_lets_a_burst_through_and_then_ten_a_second() -> None:
    clock = ManualClock()
    bucket = TokenBucket(per_second=10, burst=100, clock=clock)
    assert [bucket.next_seconds() for _ in range(100)] == [0.0] * 100
    assert [round(bucket.next_seconds(), 3) for _ in range(3)] == [0.1, 0.2, 0.3]
    clock.advance(10.3)
    assert bucket.next_seconds() == 0.0


def test_limiter_takes_the_longer_of_the_two() -> None:
    clock = ManualClock()
    limiter = RateLimiter(
        backoff=ItemBackoff(base_seconds=1), bucket=TokenBucket(per_second=1, burst=2, clock=clock), clock=clock
    )
    assert [limiter.next_seconds("a") for _ in range(2)] == [1, 2]
    assert limiter.next_seconds("b") == 1.0
    assert limiter.next_seconds("c") == 2.0
    assert ItemBackoff().next_seconds("x") == 0.005


def test_backoff_stops_at_half_a_minute() -> None:
    backoff = ItemBackoff()
    assert [backoff.next_seconds("a") for _ in range(80)][-1] == 30.0


def test_asked_for_wait_is_obeyed() -> None:
    clock = ManualClock()
    queue: Queue[str] = Queue("asked", clock=clock)
    assert queue.add_rate_limited("a", at_least_seconds=7) == 7
    clock.advance(6.9)
    assert queue.get(timeout_seconds=0) is None
    clock.advance(0.2)
    assert queue.get(timeout_seconds=0) == "a"


def test_metrics_are_reported() -> None:
    seen: list[tuple[str, float]] = []

    class Metrics(NoQueueMetrics):
        def added(self, queue: str) -> None:
            seen.append(("added", 1))

        def retried(self, queue: str) -> None:
            seen.append(("retried", 1))

        def depth(self, queue: str, items: int) -> None:
            seen.append(("depth", items))

        def waited(self, queue: str, seconds: float) -> None:
            seen.append(("waited", seconds))

        def worked(self, queue: str, seconds: float) -> None:
            seen.append(("worked", seconds))

    clock = ManualClock()
    queue: Queue[str] = Queue("metrics", clock=clock, metrics=Metrics())
    queue.add("a")
    queue.add("a")
    clock.advance(2)
    assert queue.get() == "a"
    clock.advance(3)
    assert queue.longest_running_seconds() == 3
    queue.add_rate_limited("a")
    queue.done("a")
    assert seen == [("added", 1), ("depth", 1), ("waited", 2), ("depth", 0), ("retried", 1), ("worked", 3)]
