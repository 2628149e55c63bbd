"""One holder at a time, by a Lease object (coordination.k8s.io/v1): for the server's leader, and for the one agent of a node.

The argument. The holder notes its own clock *before* it sends a renewal; whoever else wants the lease waits the lease's whole duration on *his* clock, from
the moment at which he first saw the renewal. So nobody takes it before the holder's note plus the duration, however the wall clocks stand: they are written
for people only and decide nothing. The holder gives up earlier than that, after the renew deadline, and so learns of its loss while it still surely holds the
lease (15 s against 10 s leaves 5 s to stop its work). A watchdog thread does this, because the renewing thread may hang in a request at just that moment;
:meth:`LeaseElector.is_leader` asks the clock as well, so that even a process that was frozen answers rightly when it wakes.

What a lease is not: a fence. A process frozen between asking and writing writes late. Writes that must not happen twice carry a resourceVersion.

Promises
- Every write is conflict-checked. A renewal whose answer was lost does not prolong anything; the next one reads first.
- `leaseTransitions` counts changes of holder, `acquireTime` says when the present one began; fields of others are kept.
- Stopping gives the lease back, so that the next holder need not wait; not when guarded work is still running (`clean=False`).
- `on_lost` is called once for each `on_started`, except after an ordered stop. Both must return at once.

It does not know what the lease guards.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from longshore.errors import (
    AlreadyExistsError,
    ConflictError,
    LeaseLostError,
    LongshoreError,
    NotFoundError,
    UsageError,
)
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock, format_micro_time
from longshore.kube.resource import LEASES, JsonObject
from longshore.logs import get_logger

__all__ = ["LeaseElector", "LeaseTimes"]

_log = get_logger(__name__)

_REQUEST_SECONDS_MIN: Final = 0.2


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Kubernetes' own figures for leader election."""

    duration_seconds: int = 15
    """How long others wait after the last renewal that they saw."""
    renew_deadline_seconds: float = 10.0
    """How long the holder believes in a renewal; the rest of the duration is for stopping what the lease guards."""
    retry_period_seconds: float = 2.0
    """Between tries, and between renewals; up to a fifth longer by chance."""

    def __post_init__(self) -> None:
        if not 0.0 < self.retry_period_seconds * 1.2 < self.renew_deadline_seconds < self.duration_seconds:
            raise UsageError(
                f"lease times must grow from retry period over renew deadline to duration: times={self.retry_period_seconds}"
                f", {self.renew_deadline_seconds}, {self.duration_seconds}"
            )


class LeaseElector:
    """Competes for one Lease, holds it, and tells when it is gained and lost; a component for the manager."""

    def __init__(
        self,
        client: KubeClient,
        *,
        name: str,
        namespace: str,
        identity: str,
        times: LeaseTimes | None = None,
        labels: dict[str, str] | None = None,
        compete_again: bool = False,
        on_started: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        on_kept_waiting: Callable[[JsonObject], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            name: of the Lease object; also of this component.
            identity: of this very process, never used again by a later one.
            labels: for a Lease that we create.
            compete_again: after a loss try again; otherwise a loss ends the process through `failed`.
            on_kept_waiting: told of the Lease once for each holder that has renewed it while we waited for longer than it would have lasted. So its holder
                lives; one that was killed, or stops, lets go sooner.
        """
        if not identity:
            raise UsageError(f"a lease needs an identity: lease={name}")
        self.name = name
        self.namespace: Final = namespace
        self.identity: Final = identity
        self._client = client
        self._times = LeaseTimes() if times is None else times
        self._labels = dict(labels or {})
        self._compete_again = compete_again
        self._on_started = on_started
        self._on_lost = on_lost
        self._on_kept_waiting = on_kept_waiting
        self._clock = clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - jitter, not a secret
        self._failed: Callable[[BaseException], None] = lambda _err: None
        self._stop = threading.Event()
        self._changed = threading.Condition()
        # Held over each change of holder and its callback, so that a gain is never told before the loss that came first.
        self._terms = threading.Lock()
        self._over = False
        self._renewed_at: float | None = None
        self._seen: JsonObject | None = None
        self._seen_at = 0.0
        self._waits_for: str | None = None
        self._waits_since: float | None = None
        """None once it was told that this holder lives."""
        self._thread: threading.Thread | None = None
        self._watchdog: threading.Thread | None = None

    # -- asking ----------------------------------------------------------------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether we hold it and have time left to act on that."""
        with self._changed:
            return self._holds()

    @property
    def deadline(self) -> float | None:
        """Monotonic time before which nobody else can hold it; None when we do not."""
        with self._changed:
            return None if self._renewed_at is None else self._renewed_at + self._times.duration_seconds

    def check(self) -> None:
        """Refuse to go on without the lease.

        Raises:
            LeaseLostError: we do not hold it.
        """
        if not self.is_leader():
            raise LeaseLostError(f"the lease is not held: lease={self.namespace}/{self.name}")

    def holder(self) -> str | None:
        """Who holds it as far as we saw last; None when nobody does."""
        seen = self._seen
        return None if seen is None else _holder(seen)

    def wait_until_held(self, *, timeout_seconds: float) -> bool:
        """Wait until we hold it; false when the time is over or the elector was stopped."""
        ends = self._clock.monotonic() + timeout_seconds
        with self._changed:
            while not self._holds():
                left = ends - self._clock.monotonic()
                if left <= 0.0 or self._stop.is_set():
                    return False
                self._clock.wait_for_notice(self._changed, left)
            return True

    # -- life ------------------------------------------------------------------------------------------------------------------

    def start(self, *, failed: Callable[[BaseException], None] | None = None) -> None:
        """Begin to compete.

        Args:
            failed: told of the loss when the elector does not compete again, and of faults in the callbacks.
        """
        if failed is not None:
            self._failed = failed
        self._thread = threading.Thread(target=self._compete, name=f"lease-{self.name}", daemon=True)
        self._watchdog = threading.Thread(target=self._watch_deadline, name=f"lease-{self.name}-watchdog", daemon=True)
        self._thread.start()
        self._watchdog.start()

    def stop(self, *, timeout_seconds: float = 5.0, clean: bool = True) -> bool:
        """Stop competing and give the lease back.

        Args:
            clean: whether everything that the lease guards has ended; otherwise it is left to lapse.

        Returns:
            Whether the threads ended in time.
        """
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        ends = self._clock.monotonic() + timeout_seconds
        own = threading.current_thread()
        threads = [thread for thread in (self._thread, self._watchdog) if thread is not None and thread is not own]
        for thread in threads:
            thread.join(max(0.0, ends - self._clock.monotonic()))
        ended = not any(thread.is_alive() for thread in threads)
        with self._changed:
            held, self._renewed_at = self._renewed_at is not None, None
        if held and clean and ended:
            self._release()
        return ended

    def not_ready(self) -> str | None:
        """A process that waits for its turn is ready to take it."""
        return None

    def not_live(self) -> str | None:
        """Dead when a thread ended by itself."""
        threads = (self._thread, self._watchdog)
        ended = any(thread is not None and not thread.is_alive() for thread in threads)
        return "thread ended" if ended and not self._stop.is_set() else None

    # -- the competing thread --------------------------------------------------------------------------------------------------

    def _compete(self) -> None:
        while not self._stop.is_set():
            try:
                self._step()
            except LongshoreError as err:
                _log.warning("Lease request failed", lease=self.name, error=err, held=self.is_leader())
            except Exception as err:  # noqa: BLE001 - handed on; a lease that is not renewed is lost in order
                _log.exception("Lease elector failed", lease=self.name)
                self._failed(err)
            self._clock.wait(self._stop, self._times.retry_period_seconds * self._rng.uniform(1.0, 1.2))

    def _step(self) -> None:
        """Try once to gain or renew; read first unless the last write is known to be ours and the newest."""
        if self._renewed_at is None or self._seen is None:
            self._look()
        if self._seen is not None and not self._may_take(self._seen):
            if self._renewed_at is not None:
                self._lose("taken by another holder")
            self._tell_waiting(self._seen)
            return
        # Before sending: what others may count from can only be later.
        sent_at = self._clock.monotonic()
        try:
            if self._seen is None:
                written = self._client.create(
                    LEASES, self._wanted(None), namespace=self.namespace, timeout_seconds=self._request_seconds()
                )
            else:
                written = self._client.replace(
                    LEASES, self._wanted(self._seen), namespace=self.namespace, timeout_seconds=self._request_seconds()
                )
        except (ConflictError, AlreadyExistsError, NotFoundError):
            # Somebody wrote in between, or a lost answer was a success after all: look at once, so that a loss is learnt at once.
            self._look()
            if self._renewed_at is not None and self._seen is not None and _holder(self._seen) != self.identity:
                self._lose("taken by another holder")
            return
        except LongshoreError:
            # Whether it was written is unknown: the cached version cannot be trusted for the next try.
            self._seen = None if self._renewed_at is not None else self._seen
            raise
        self._seen, self._seen_at = written, self._clock.monotonic()
        self._gain(sent_at)

    def _tell_waiting(self, lease: JsonObject) -> None:
        """Say once for each holder why nothing is done here, and once that it lives."""
        holder, now = _holder(lease), self._clock.monotonic()
        if holder != self._waits_for:
            self._waits_for, self._waits_since = holder, now
            _log.info("Waiting for lease", lease=self.name, holder=holder, identity=self.identity)
        elif self._waits_since is not None and now > self._waits_since + self._promised(lease):
            self._waits_since = None
            told = self._on_kept_waiting
            if told is not None:
                self._call(lambda: told(lease))

    def _look(self) -> None:
        before = self._seen
        try:
            found: JsonObject | None = self._client.get(
                LEASES, self.name, namespace=self.namespace, timeout_seconds=self._request_seconds()
            )
        except NotFoundError:
            found = None
        if (
            found is None
            or before is None
            or found["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
        ):
            # The waiting of a whole duration starts anew with everything that moved.
            self._seen_at = self._clock.monotonic()
        self._seen = found

    def _may_take(self, lease: JsonObject) -> bool:
        holder = _holder(lease)
        if holder is None or holder == self.identity:
            return True
        return self._clock.monotonic() >= self._seen_at + self._promised(lease)

    def _promised(self, lease: JsonObject) -> int:
        """For how many seconds after a renewal its holder may count on it."""
        return (lease.get("spec") or {}).get("leaseDurationSeconds") or self._times.duration_seconds

    def _wanted(self, lease: JsonObject | None) -> JsonObject:
        now = format_micro_time(self._clock.now())
        wanted: JsonObject = {} if lease is None else copy.deepcopy(lease)
        if lease is None:
            wanted["metadata"] = {"name": self.name, "namespace": self.namespace}
            if self._labels:
                wanted["metadata"]["labels"] = self._labels
        spec = wanted.setdefault("spec", {})
        if spec.get("holderIdentity") != self.identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = 0 if lease is None else int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._times.duration_seconds,
            "renewTime": now,
        }
        return wanted

    def _request_seconds(self) -> float:
        """So long that a request ends before the lease must be given up."""
        renewed = self._renewed_at
        left = self._times.renew_deadline_seconds
        if renewed is not None:
            left = renewed + self._times.renew_deadline_seconds - self._clock.monotonic()
        return max(_REQUEST_SECONDS_MIN, min(left, self._times.renew_deadline_seconds / 2.0))

    def _gain(self, sent_at: float) -> None:
        with self._changed:
            if self._over or sent_at + self._times.renew_deadline_seconds <= self._clock.monotonic():
                # Given up already, or an answer so late that it is worth nothing; what was written lapses by itself.
                return
            if self._renewed_at is not None or self._stop.is_set():
                # Gained while stopping: noted, so that it is given back.
                self._renewed_at = sent_at
                self._changed.notify_all()
                return
        with self._terms:
            with self._changed:
                self._renewed_at = sent_at
                self._changed.notify_all()
            self._waits_for = None
            _log.info("Gained lease", lease=self.name, identity=self.identity)
            self._call(self._on_started)

    # -- losing ----------------------------------------------------------------------------------------------------------------

    def _watch_deadline(self) -> None:
        while True:
            with self._changed:
                if self._stop.is_set():
                    return
                renewed = self._renewed_at
                now = self._clock.monotonic()
                gives_up_at = None if renewed is None else renewed + self._times.renew_deadline_seconds
                if gives_up_at is None or now < gives_up_at:
                    self._clock.wait_for_notice(self._changed, None if gives_up_at is None else gives_up_at - now)
                    continue
            self._lose("not renewed in time", renewed_at=renewed)

    def _lose(self, why: str, *, renewed_at: float | None = None) -> None:
        with self._terms:
            with self._changed:
                if self._renewed_at is None or (renewed_at is not None and self._renewed_at != renewed_at):
                    return
                self._renewed_at = None
                self._over = not self._compete_again
                self._changed.notify_all()
            _log.error("Lost lease", lease=self.name, identity=self.identity, reason=why)
            self._call(self._on_lost)
        if self._over:
            self._stop.set()
            self._failed(LeaseLostError(f"the lease was lost: lease={self.namespace}/{self.name}, reason={why}"))

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception as err:  # noqa: BLE001 - handed on
            _log.exception("Lease callback failed", lease=self.name)
            self._failed(err)

    def _release(self) -> None:
        """Say that nobody holds it; if anything stands in the way it lapses by itself."""
        try:
            lease = self._client.get(
                LEASES, self.name, namespace=self.namespace, timeout_seconds=self._request_seconds()
            )
            if _holder(lease) != self.identity:
                return
            lease["spec"]["holderIdentity"] = ""
            lease["spec"]["leaseDurationSeconds"] = 1
            lease["spec"]["renewTime"] = format_micro_time(self._clock.now())
            self._client.replace(LEASES, lease, namespace=self.namespace, timeout_seconds=self._request_seconds())
        except LongshoreError as err:
            _log.warning("Lease was not given back", lease=self.name, error=err)
        else:
            _log.info("Gave lease back", lease=self.name)

    def _holds(self) -> bool:
        return (
            self._renewed_at is not None
            and self._clock.monotonic() < self._renewed_at + self._times.renew_deadline_seconds
        )


def _holder(lease: JsonObject) -> str | None:
    return (lease.get("spec") or {}).get("holderIdentity") or None
