"""The queue between "something changed" and "a worker looks at it", with client-go's semantics.

An item is a key, never an event. Three sets make the promises: *dirty* holds what has to be worked on, *processing* what is being worked on, and the order
list holds dirty items that nobody is working on. So
- an item that is added ten times before a worker takes it is worked on once;
- an item is never worked on by two workers at the same time;
- an item that is added while it is worked on is worked on again afterwards; nothing is lost.

Delays need no thread of their own: whoever waits in `get` wakes when the next delayed item is due. Failing items come back after max(own backoff, a share of
a bucket for all): 5 ms doubling to 30 s for each item, 10 a second with bursts of 100 for all of them. 30 s and not client-go's 1,000, because every object
has to converge within a minute after the fault that held it up is over.

It does not know what a key means, and nothing is kept over a restart: the informer's first list fills it again.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from threading import Condition
from typing import Generic, Protocol, TypeVar

from longshore.kube.clock import SYSTEM_CLOCK, Clock

__all__ = ["ItemBackoff", "NoQueueMetrics", "Queue", "QueueMetrics", "RateLimiter", "TokenBucket"]

Item = TypeVar("Item", bound=Hashable)


class QueueMetrics(Protocol):
    """What the queue reports; the names in quotes are those under which Kubernetes components publish it."""

    def depth(self, queue: str, items: int) -> None:
        """`workqueue_depth`: items waiting for a worker."""
        ...

    def added(self, queue: str) -> None:
        """`workqueue_adds_total`."""
        ...

    def retried(self, queue: str) -> None:
        """`workqueue_retries_total`."""
        ...

    def waited(self, queue: str, seconds: float) -> None:
        """`workqueue_queue_duration_seconds`: from added to taken."""
        ...

    def worked(self, queue: str, seconds: float) -> None:
        """`workqueue_work_duration_seconds`: from taken to done."""
        ...


class NoQueueMetrics:
    """Reports to nobody."""

    def depth(self, queue: str, items: int) -> None:
        """Nothing."""

    def added(self, queue: str) -> None:
        """Nothing."""

    def retried(self, queue: str) -> None:
        """Nothing."""

    def waited(self, queue: str, seconds: float) -> None:
        """Nothing."""

    def worked(self, queue: str, seconds: float) -> None:
        """Nothing."""


class ItemBackoff:
    """5 ms · 2ⁿ for the n-th failure in a row of one item, up to a maximum."""

    def __init__(self, *, base_seconds: float = 0.005, maximum_seconds: float = 30.0) -> None:
        self._base_seconds = base_seconds
        self._maximum_seconds = maximum_seconds
        self._failures: dict[Hashable, int] = {}

    def next_seconds(self, item: Hashable) -> float:
        """Count a failure and say how long to wait."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        return min(self._maximum_seconds, self._base_seconds * 2.0 ** min(failures, 60))

    def failures(self, item: Hashable) -> int:
        """Failures in a row."""
        return self._failures.get(item, 0)

    def forget(self, item: Hashable) -> None:
        """The item went well, or is gone."""
        self._failures.pop(item, None)


class TokenBucket:
    """So many a second on average, with a burst; reserves ahead and says how long to wait for one's turn."""

    def __init__(self, *, per_second: float = 10.0, burst: int = 100, clock: Clock = SYSTEM_CLOCK) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock.monotonic()

    def next_seconds(self) -> float:
        """Take a token, on credit if need be, and say when it is due."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second) - 1.0
        self._at = now
        return 0.0 if self._tokens >= 0.0 else -self._tokens / self._per_second


class RateLimiter:
    """The longer of an item's own backoff and its turn in the bucket."""

    def __init__(
        self, *, backoff: ItemBackoff | None = None, bucket: TokenBucket | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._backoff = ItemBackoff() if backoff is None else backoff
        self._bucket = TokenBucket(clock=clock) if bucket is None else bucket

    def next_seconds(self, item: Hashable) -> float:
        """Count a failure of the item and say how long to wait."""
        return max(self._backoff.next_seconds(item), self._bucket.next_seconds())

    def failures(self, item: Hashable) -> int:
        """Failures in a row."""
        return self._backoff.failures(item)

    def forget(self, item: Hashable) -> None:
        """The item went well, or is gone."""
        self._backoff.forget(item)


class Queue(Generic[Item]):
    """A deduplicating, delaying, rate-limited queue; every method may be called from any thread."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock = SYSTEM_CLOCK,
        limiter: RateLimiter | None = None,
        metrics: QueueMetrics | None = None,
    ) -> None:
        """Make an empty queue; `name` is its label in metrics."""
        self.name = name
        self._clock = clock
        self._limiter = RateLimiter(clock=clock) if limiter is None else limiter
        self._metrics: QueueMetrics = NoQueueMetrics() if metrics is None else metrics
        self._condition = Condition()
        self._order: deque[Item] = deque()
        self._dirty: dict[Item, float] = {}
        self._processing: dict[Item, float] = {}
        # The heap may hold outdated entries; `_due` says which one counts.
        self._delayed: list[tuple[float, int, Item]] = []
        self._due: dict[Item, float] = {}
        self._ticket = itertools.count()
        self._shut_down = False

    def add(self, item: Item) -> None:
        """Have the item worked on as soon as a worker is free."""
        with self._condition:
            self._add(item)

    def add_after(self, item: Item, seconds: float) -> None:
        """Have it worked on after a while; if it already waits, the earlier of the two moments counts."""
        with self._condition:
            if self._shut_down:
                return
            if seconds <= 0.0:
                self._add(item)
                return
            due = self._clock.monotonic() + seconds
            if item in self._due and self._due[item] <= due:
                return
            self._due[item] = due
            heapq.heappush(self._delayed, (due, next(self._ticket), item))
            # Whoever waits may have to wake earlier than planned.
            self._condition.notify()

    def add_rate_limited(self, item: Item, *, at_least_seconds: float = 0.0) -> float:
        """Have it tried again after its backoff.

        Args:
            at_least_seconds: a longer wait that somebody asked for, e.g. Retry-After.

        Returns:
            Seconds until then.
        """
        with self._condition:
            seconds = max(self._limiter.next_seconds(item), at_least_seconds)
            if not self._shut_down:
                self._metrics.retried(self.name)
        self.add_after(item, seconds)
        return seconds

    def forget(self, item: Item) -> None:
        """Start the item's backoff anew; says nothing about whether it waits."""
        with self._condition:
            self._limiter.forget(item)

    def failures(self, item: Item) -> int:
        """How often in a row the item was added rate-limited."""
        with self._condition:
            return self._limiter.failures(item)

    def get(self, *, timeout_seconds: float | None = None) -> Item | None:
        """Take the next item; call `done` for it afterwards, whatever happened.

        Args:
            timeout_seconds: None waits for ever.

        Returns:
            None when the queue was shut down and is empty, or the time is over.
        """
        with self._condition:
            ends = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
            while True:
                self._ripen()
                if self._order:
                    break
                if self._shut_down:
                    return None
                now = self._clock.monotonic()
                if ends is not None and now >= ends:
                    return None
                moments = [
                    moment for moment in (ends, self._delayed[0][0] if self._delayed else None) if moment is not None
                ]
                self._clock.wait_for_notice(self._condition, max(0.0, min(moments) - now) if moments else None)
            item = self._order.popleft()
            now = self._clock.monotonic()
            self._metrics.waited(self.name, now - self._dirty.pop(item))
            self._processing[item] = now
            self._metrics.depth(self.name, len(self._order))
            if self._order or self._delayed:
                # One notice may have stood for several items, or this thread may have been the one that waited for the next delay.
                self._condition.notify()
            return item

    def done(self, item: Item) -> None:
        """The worker has finished with the item, well or not."""
        with self._condition:
            started = self._processing.pop(item, None)
            if started is not None:
                self._metrics.worked(self.name, self._clock.monotonic() - started)
            if item in self._dirty and started is not None:
                self._order.append(item)
                self._metrics.depth(self.name, len(self._order))
            self._condition.notify_all()

    def shut_down(self) -> None:
        """Take nothing new, forget what is delayed, let workers finish what is in order; `get` gives None after that."""
        with self._condition:
            self._shut_down = True
            self._delayed.clear()
            self._due.clear()
            self._condition.notify_all()

    def drain(self, *, timeout_seconds: float) -> bool:
        """Shut down and wait until everything that was in order has been worked on.

        Returns:
            Whether that happened in time.
        """
        self.shut_down()
        with self._condition:
            ends = self._clock.monotonic() + timeout_seconds
            while self._order or self._processing:
                left = ends - self._clock.monotonic()
                if left <= 0.0:
                    return False
                self._clock.wait_for_notice(self._condition, left)
            return True

    def is_shut_down(self) -> bool:
        """Whether `shut_down` was called."""
        return self._shut_down

    def __len__(self) -> int:
        """Items that a worker could take now."""
        with self._condition:
            self._ripen()
            return len(self._order)

    def longest_running_seconds(self) -> float:
        """How long the longest-running item has been worked on; 0 when none is."""
        with self._condition:
            return self._clock.monotonic() - min(self._processing.values()) if self._processing else 0.0

    # -- the condition is held -------------------------------------------------------------------------------------------------

    def _add(self, item: Item) -> None:
        if self._shut_down or item in self._dirty:
            return
        self._metrics.added(self.name)
        self._dirty[item] = self._clock.monotonic()
        if item in self._processing:
            return
        self._order.append(item)
        self._metrics.depth(self.name, len(self._order))
        self._condition.notify()

    def _ripen(self) -> None:
        now = self._clock.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            due, _ticket, item = heapq.heappop(self._delayed)
            if self._due.get(item) == due:
                del self._due[item]
                self._add(item)
