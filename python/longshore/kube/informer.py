"""A local copy of one kind of object, kept up to date by list and watch.

Controllers read from the copy and are told that something changed; they never act on the event itself. So the informer may merge, drop and repeat
notifications freely, as long as the last state of each object is told at least once. That freedom is what bounds its memory: a handler that lags behind
costs one entry for each changed object, not one for each event.

How it works: a list, in pages, gives the state and its version; a watch from that version gives the changes. A bookmark moves the version along without a
change, so that a quiet kind can still be resumed. 410 (as a status or inside the stream) means list again; what vanished meanwhile is found by comparing
keys and uids. Any other failure resumes the watch at the last version after a growing, jittered pause.

A connection can die without a word (a control-plane upgrade, a dropped NAT entry), and the server's `timeoutSeconds` does not help when the server is gone.
Nothing tells silence from death (a server sends bookmarks every minute or two, and none where nothing moved), so 70 s without a byte count as death:
resuming costs one request, and a stall is noticed within 75 s.

Promises
- `has_synced` turns true after the first whole list and stays so; handlers hear of every object that was in it.
- Handlers run on threads of their own: a slow one delays neither the watch nor another handler; one that raises is logged and goes on.
- An object that was deleted and made anew between two looks is told as a deletion and an addition.
- A deletion that was missed is told with `final_state_unknown=True` and the last state that was seen.
- Objects are kept as encoded bytes after `transform`; every reader gets a copy of its own and can harm nobody.
- `stop` returns within about a second. A list request that is under way ends by itself in its daemon thread and changes nothing any more.

It does not know queues, phases or what the objects mean.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from longshore.errors import GoneError, LongshoreError, UsageError
from longshore.kube.client import KubeList
from longshore.kube.clock import SYSTEM_CLOCK, Backoff, Clock
from longshore.kube.delivery import Entry, Gone, Handler, Listener
from longshore.kube.resource import JsonObject, Resource, key_of, object_key
from longshore.kube.watch import WatchEvent, WatchEventType, WatchStream
from longshore.logs import get_logger

__all__ = ["Handler", "Indexer", "Informer", "InformerTimes", "ListWatcher", "Transform"]

_log = get_logger(__name__)

_SHORT_WATCH_SECONDS: Final = 1.0

Transform = Callable[[JsonObject], JsonObject]
"""Cuts an object down to what is needed before it is kept; must leave `metadata.name`, `.namespace` and `.uid`."""
Indexer = Callable[[JsonObject], Iterable[str]]
"""Names the values under which an object is found."""


class ListWatcher(Protocol):
    """What the informer needs of a client."""

    def page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = 500,
        continue_token: str = "",
        resource_version: str | None = None,
        timeout_seconds: float | None = None,
    ) -> KubeList:
        """One page of a list."""
        ...

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str,
        server_timeout_seconds: int,
        read_timeout_seconds: float,
    ) -> WatchStream:
        """A stream of changes."""
        ...


@dataclass(frozen=True, slots=True)
class InformerTimes:
    """How long things take; the defaults are for production."""

    server_timeout_seconds_min: int = 300
    server_timeout_seconds_max: int = 600
    """The server ends each watch after a random time in this range, so that watches spread over API servers and moments."""
    silence_seconds_max: float = 70.0
    """After so long without a byte the stream counts as dead; noticing must take no longer than 75 s."""
    overrun_seconds_max: float = 30.0
    """A stream that outlives its server timeout by this much is closed by us."""
    page_size: int = 500
    list_timeout_seconds: float = 60.0
    """For one page, Retry-After included."""


class Informer:
    """Keeps a copy of one kind; see the module's text."""

    def __init__(
        self,
        client: ListWatcher,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        transform: Transform | None = None,
        indexers: Mapping[str, Indexer] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        times: InformerTimes | None = None,
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            namespace: None means all.
            transform: applied to every object before it is kept; what it drops costs no memory and, when only that changed, no notification.
            indexers: name → function; see `by_index`.
            rng: for jitter.
        """
        self.resource: Final = resource
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._indexers = dict(indexers or {})
        self._clock = clock
        self._rng = random.Random() if rng is None else rng  # noqa: S311 - jitter, not a secret
        self._times = InformerTimes() if times is None else times
        self._backoff = Backoff(clock=clock, rng=self._rng)
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._index: dict[str, dict[str, set[str]]] = {name: {} for name in self._indexers}
        self._listeners: list[Listener] = []
        self._stop = threading.Event()
        self._synced = threading.Event()
        self._stream: WatchStream | None = None
        self._thread: threading.Thread | None = None
        self._version: str | None = None
        self._last_sign = clock.monotonic()
        self._last_beat = clock.monotonic()
        self._last_error: LongshoreError | None = None

    # -- life ------------------------------------------------------------------------------------------------------------------

    def add_handler(self, handler: Handler) -> None:
        """Tell this handler of every object, from what is already there on; at any time, before or after `start`."""
        listener = Listener(
            handler,
            entry_of=self._entry,
            name=f"informer-{self.resource.plural}-handler-{len(self._listeners)}",
            stop=self._stop,
        )
        with self._lock:
            for key in self._entries:
                listener.notice(key, None)
            self._listeners.append(listener)
            started = self._thread is not None
        if started:
            listener.start()

    def start(self) -> None:
        """Begin; once.

        Raises:
            UsageError: it was started before.
        """
        with self._lock:
            if self._thread is not None:
                raise UsageError(f"the informer was started before: resource={self.resource}")
            self._thread = threading.Thread(target=self._run, name=f"informer-{self.resource.plural}", daemon=True)
            listeners = list(self._listeners)
        for listener in listeners:
            listener.start()
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 1.0) -> bool:
        """End; the copy stays readable.

        Returns:
            Whether all threads had ended in time.
        """
        self._stop.set()
        with self._lock:
            stream, listeners, thread = self._stream, list(self._listeners), self._thread
        if stream is not None:
            stream.close()
        ended = True
        for listener in listeners:
            ended = listener.join(timeout_seconds) and ended
        if thread is not None:
            thread.join(timeout_seconds)
            ended = not thread.is_alive() and ended
        return ended

    def has_synced(self) -> bool:
        """Whether a whole list has been taken in."""
        return self._synced.is_set()

    def wait_for_sync(self, *, timeout_seconds: float) -> bool:
        """Wait for the first whole list."""
        return self._synced.wait(timeout_seconds)

    def last_event_age_seconds(self) -> float:
        """Seconds since the server was last heard: a list, an event or a bookmark."""
        return self._clock.monotonic() - self._last_sign

    def last_error(self) -> LongshoreError | None:
        """What went wrong last, None once the server was heard again."""
        return self._last_error

    def is_alive(self) -> bool:
        """Whether the thread lives and moves. An API server that is away does not make it dead: it tries, and each try is a move."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return False
        longest = 2.0 * (self._times.silence_seconds_max + self._times.list_timeout_seconds + 30.0)
        return self._clock.monotonic() - self._last_beat < longest

    # -- reading ---------------------------------------------------------------------------------------------------------------

    def get(self, name: str, *, namespace: str | None = None) -> JsonObject | None:
        """One object as last seen, or None."""
        return self.get_by_key(key_of(namespace, name))

    def get_by_key(self, key: str) -> JsonObject | None:
        """One object by `namespace/name`, or None."""
        entry = self._entry(key)
        return None if entry is None else entry.decode()

    def list(self) -> _Objects:
        """All objects, in no order that matters."""
        with self._lock:
            entries = [*self._entries.values()]
        return [entry.decode() for entry in entries]

    def keys(self) -> set[str]:
        """The keys of all objects."""
        with self._lock:
            return set(self._entries)

    def by_index(self, index: str, value: str) -> _Objects:
        """The objects for which the indexer of that name gave this value.

        Raises:
            UsageError: there is no such index.
        """
        if index not in self._indexers:
            raise UsageError(f"the informer has no such index: resource={self.resource}, index={index}")
        with self._lock:
            entries = [self._entries[key] for key in sorted(self._index[index].get(value, ()))]
        return [entry.decode() for entry in entries]

    def _entry(self, key: str) -> Entry | None:
        with self._lock:
            return self._entries.get(key)

    # -- the watch's thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            self._last_beat = self._clock.monotonic()
            try:
                if self._version is None:
                    self._relist()
                if not self._watch():
                    # Ended in order, but at once or without a word: whoever answers like that must not be asked in a tight loop.
                    self._pause(None)
            except GoneError as err:
                self._version = None
                if self._stop.is_set():
                    return
                _log.info("Resource version is too old, listing again", resource=str(self.resource))
                self._pause(err)
            except LongshoreError as err:
                if self._stop.is_set():
                    return
                _log.warning("Watch failed", resource=str(self.resource), error=err, next_step=err.next_step)
                self._pause(err)
            except Exception as err:  # noqa: BLE001 - a fault in transform or an indexer must not end the copy for ever
                _log.exception("Informer failed", resource=str(self.resource))
                self._version = None
                self._pause(LongshoreError(f"the informer failed: resource={self.resource}, cause={err!r}"))

    def _pause(self, error: LongshoreError | None) -> None:
        if error is not None:
            self._last_error = error
        seconds = self._backoff.next_seconds()
        wanted = getattr(error, "retry_after_seconds", None)
        self._clock.wait(self._stop, seconds if wanted is None else max(seconds, wanted))

    def _heard(self) -> None:
        self._last_sign = self._last_beat = self._clock.monotonic()
        self._last_error = None

    def _relist(self) -> None:
        try:
            fresh, version = self._list_all(self._times.page_size)
        except GoneError:
            # The pages outlived the server's memory: one answer cannot.
            fresh, version = self._list_all(None)
        with self._lock:
            if self._stop.is_set():
                return
            for key in [key for key in self._entries if key not in fresh]:
                self._remove(key, final_state_unknown=True)
            for key, entry in fresh.items():
                self._put(key, entry, final_state_unknown=True)
        self._version = version
        self._heard()
        self._synced.set()

    def _list_all(self, page_size: int | None) -> tuple[dict[str, Entry], str]:
        fresh: dict[str, Entry] = {}
        token = ""
        while True:
            page = self._client.page(
                self.resource,
                namespace=self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=page_size,
                continue_token=token,
                timeout_seconds=self._times.list_timeout_seconds,
            )
            self._last_beat = self._clock.monotonic()
            for item in page.items:
                fresh[object_key(item)] = self._encode(item)
            token = page.remaining
            if not token or self._stop.is_set():
                return fresh, page.resource_version

    def _watch(self) -> bool:
        """Follow one stream to its end; tell whether it was a real one: it lasted, and something came out of it."""
        if self._version is None or self._stop.is_set():
            return True
        seconds = self._rng.randint(self._times.server_timeout_seconds_min, self._times.server_timeout_seconds_max)
        began = self._clock.monotonic()
        ends_at = began + seconds + self._times.overrun_seconds_max
        stream = self._client.watch(
            self.resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            resource_version=self._version,
            server_timeout_seconds=seconds,
            read_timeout_seconds=self._times.silence_seconds_max,
        )
        heard = False
        with stream:
            with self._lock:
                self._stream = stream
            try:
                if self._stop.is_set():
                    return True
                for event in stream:
                    self._take(event)
                    if not heard:
                        heard = True
                        self._backoff.reset()
                    if self._stop.is_set() or self._clock.monotonic() > ends_at:
                        return True
                if stream.silent:
                    _log.debug("Watch fell silent, resuming", resource=str(self.resource))
            finally:
                with self._lock:
                    self._stream = None
        return heard and self._clock.monotonic() - began >= _SHORT_WATCH_SECONDS

    def _take(self, event: WatchEvent) -> None:
        if event.type is not WatchEventType.BOOKMARK:
            key = object_key(event.object)
            entry = self._encode(event.object)
            with self._lock:
                if self._stop.is_set():
                    return
                if event.type is WatchEventType.DELETED:
                    self._remove(key, final=entry)
                else:
                    self._put(key, entry)
        # After the change, never before it: a failure in between must see the event again.
        self._version = event.resource_version
        self._heard()

    def _encode(self, obj: JsonObject) -> Entry:
        obj.setdefault("apiVersion", self.resource.api_version)
        obj.setdefault("kind", self.resource.kind)
        obj["metadata"].pop("managedFields", None)
        uid = str(obj["metadata"].get("uid", ""))
        kept = obj if self._transform is None else self._transform(obj)
        indexed = tuple(
            (name, value) for name, indexer in self._indexers.items() for value in dict.fromkeys(indexer(kept))
        )
        return Entry(uid=uid, encoded=msgspec.json.encode(kept), indexed=indexed)

    # -- the copy; the lock is held --------------------------------------------------------------------------------------------

    def _put(self, key: str, entry: Entry, *, final_state_unknown: bool = False) -> None:
        old = self._entries.get(key)
        if old is not None:
            if old.uid != entry.uid:
                self._remove(key, final_state_unknown=final_state_unknown)
            elif old.encoded == entry.encoded:
                return
            else:
                self._unindex(key, old)
        self._entries[key] = entry
        for name, value in entry.indexed:
            self._index[name].setdefault(value, set()).add(key)
        for listener in self._listeners:
            listener.notice(key, None)

    def _remove(self, key: str, *, final: Entry | None = None, final_state_unknown: bool = False) -> None:
        old = self._entries.pop(key, None)
        if old is None:
            return
        self._unindex(key, old)
        last = final if final is not None and final.uid == old.uid else old
        for listener in self._listeners:
            listener.notice(key, Gone(last, final_state_unknown))

    def _unindex(self, key: str, entry: Entry) -> None:
        for name, value in entry.indexed:
            keys = self._index[name].get(value)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._index[name][value]


_Objects = list[JsonObject]  # named out here because the informer has a method called `list`
