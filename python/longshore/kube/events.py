"""Events: what an operator sees with `kubectl describe`. Written behind the caller's back, merged, limited, and never in anybody's way.

Promises
- `record` returns at once and raises nothing, whatever the API server does; what does not fit into the waiting list is dropped and counted.
- The same event again (object, type, reason, message) raises the count of the first instead of making another. More than ten different messages for the same
  object and reason within ten minutes become one "combined" event.
- One object gets 25 events at once and one in five minutes after that, so that a loop cannot flood the cluster's etcd.
- A message that is too long is cut in its midst: the next step, its last part after a semicolon, stays.
- Memory is bounded: the least recently used objects are forgotten.

Core v1 events are used, not events.k8s.io: every version of Kubernetes and of kubectl shows them.

It does not know reasons: those belong to controllers. They are CamelCase; messages hold no secret.
"""

from __future__ import annotations

import queue
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Generic, TypeVar

from longshore.errors import LongshoreError, NotFoundError
from longshore.kube.client import KubeClient
from longshore.kube.clock import SYSTEM_CLOCK, Clock, format_time
from longshore.kube.resource import EVENTS, JsonObject
from longshore.logs import get_logger, redact

__all__ = ["EventRecorder", "EventType"]

_log = get_logger(__name__)

_WAITING_MAX: Final = 1_000
_REMEMBERED_MAX: Final = 4_096
_BURST: Final = 25.0
_REFILL_PER_SECOND: Final = 1.0 / 300.0
_SIMILAR_MAX: Final = 10
_SIMILAR_SECONDS: Final = 600.0
_MESSAGE_CHARS_MAX: Final = 1_024
_NAME_CHARS_MAX: Final = 230
_REQUEST_SECONDS: Final = 10.0


class EventType(StrEnum):
    """The two types there are."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class _Wish:
    regarding: JsonObject
    type: EventType
    reason: str
    message: str
    at: str


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True)
class _Similar:
    since: float
    messages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Written:
    name: str
    namespace: str
    count: int


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Recent(Generic[Key, Value]):
    """A dictionary that forgets what was used least recently."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._items: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: Key, value: Value) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._size_max:
            self._items.popitem(last=False)

    def pop(self, key: Key) -> None:
        self._items.pop(key, None)


class EventRecorder:
    """Records events of one component; a component for the manager."""

    def __init__(
        self, client: KubeClient, *, component: str, host: str | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Prepare; events may be recorded before `start` and are written after it.

        Args:
            component: who speaks, e.g. `longshore-node-agent`.
            host: the node; this machine's name when None.
        """
        self.name = f"events-{component}"
        self.dropped = 0
        """How many were thrown away because the list was full or an object had too many."""
        self._client = client
        self._component = component
        self._host = socket.gethostname() if host is None else host
        self._clock = clock
        self._waiting: queue.Queue[_Wish | None] = queue.Queue(maxsize=_WAITING_MAX)
        self._buckets: _Recent[str, _Bucket] = _Recent(_REMEMBERED_MAX)
        self._similar: _Recent[tuple[str, ...], _Similar] = _Recent(_REMEMBERED_MAX)
        self._written: _Recent[tuple[str, ...], _Written] = _Recent(_REMEMBERED_MAX)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def record(self, obj: JsonObject, event_type: EventType, reason: str, message: str) -> None:
        """Record that something happened to an object.

        Args:
            obj: needs `apiVersion`, `kind` and `metadata`; nothing is kept of the rest.
            reason: one CamelCase word.
            message: for people; recognisable secrets are blotted out.
        """
        try:
            metadata = obj.get("metadata") or {}
            regarding = {
                "apiVersion": obj.get("apiVersion"),
                "kind": obj.get("kind"),
                "name": metadata.get("name"),
                "namespace": metadata.get("namespace"),
                "uid": metadata.get("uid"),
                "resourceVersion": metadata.get("resourceVersion"),
            }
            kept = {name: value for name, value in regarding.items() if value}
            text = _cut(str(redact(message)))
            self._waiting.put_nowait(_Wish(kept, event_type, reason, text, format_time(self._clock.now())))
        except queue.Full:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - an event must never harm what it tells about
            _log.exception("Event was not recorded", reason=reason)

    def start(self, *, failed: Callable[[BaseException], None] | None = None) -> None:  # noqa: ARG002 - events never fail a process
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 5.0, clean: bool = True) -> bool:  # noqa: ARG002 - nothing is held
        """Write what waits, as far as the time goes, and end."""
        thread = self._thread
        if thread is None:
            return True
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            self._stopping.set()
        thread.join(timeout_seconds)
        self._stopping.set()
        return not thread.is_alive()

    def not_ready(self) -> str | None:
        """Never a reason."""
        return None

    def not_live(self) -> str | None:
        """Never a reason: events are no reason to kill a backup."""
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            wish = self._waiting.get()
            if wish is None:
                return
            try:
                self._write(wish)
            except LongshoreError as err:
                _log.info("Event was not written", reason=wish.reason, regarding=wish.regarding.get("name"), error=err)
            except Exception:  # noqa: BLE001 - the next one may do better
                _log.exception("Event was not written", reason=wish.reason)
            finally:
                self._waiting.task_done()

    def _write(self, wish: _Wish) -> None:
        who = str(wish.regarding.get("uid") or wish.regarding.get("name"))
        message, key = self._merged(wish, who)
        if not self._allowed(who):
            self.dropped += 1
            return
        known = self._written.get(key)
        if known is not None:
            change = {"count": known.count + 1, "lastTimestamp": wish.at, "message": message}
            try:
                self._client.patch(
                    EVENTS, known.name, change, namespace=known.namespace, timeout_seconds=_REQUEST_SECONDS
                )
            except NotFoundError:
                # The cluster keeps events for an hour only.
                self._written.pop(key)
            else:
                known.count += 1
                return
        namespace = str(wish.regarding.get("namespace") or "default")
        name = f"{str(wish.regarding.get('name'))[:_NAME_CHARS_MAX]}.{secrets.token_hex(8)}"
        body: JsonObject = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": wish.regarding,
            "type": wish.type.value,
            "reason": wish.reason,
            "message": message,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": wish.at,
            "lastTimestamp": wish.at,
            "count": 1,
        }
        self._client.create(EVENTS, body, namespace=namespace, timeout_seconds=_REQUEST_SECONDS)
        self._written.put(key, _Written(name, namespace, 1))

    def _merged(self, wish: _Wish, who: str) -> tuple[str, tuple[str, ...]]:
        """Choose message and identity: its own, or that of the combined event when there are too many of its kind."""
        now = self._clock.monotonic()
        group = (who, wish.type.value, wish.reason)
        similar = self._similar.get(group)
        if similar is None or now - similar.since > _SIMILAR_SECONDS:
            similar = _Similar(now)
            self._similar.put(group, similar)
        if wish.message not in similar.messages:
            if len(similar.messages) >= _SIMILAR_MAX:
                return f"(combined from similar events): {wish.message}", group
            similar.messages.add(wish.message)
        return wish.message, (*group, wish.message)

    def _allowed(self, who: str) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = _Bucket(_BURST, now)
            self._buckets.put(who, bucket)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) * _REFILL_PER_SECOND)
        bucket.at = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True


def _cut(text: str) -> str:
    if len(text) <= _MESSAGE_CHARS_MAX:
        return text
    head, seam, step = text.rpartition("; ")
    if not head or len(step) > _MESSAGE_CHARS_MAX // 2:
        return text[: _MESSAGE_CHARS_MAX - 1] + "…"
    return f"{head[: _MESSAGE_CHARS_MAX - len(seam) - len(step) - 1]}…{seam}{step}"
