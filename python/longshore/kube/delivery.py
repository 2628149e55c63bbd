"""How an informer tells its handlers: each on a thread of its own, each object's latest state at least once.

What a handler has still to be told is one entry a key, however many events came: that bounds the memory of a handler that lags. A deletion is kept in that
entry until it was told, so that an object which was deleted and made anew is told as both.

It does not know where the objects come from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from longshore.kube.resource import JsonObject
from longshore.logs import get_logger

__all__ = ["Entry", "Gone", "Handler", "Listener"]

_log = get_logger(__name__)


class Handler(Protocol):
    """Who is told of changes. Level-triggered: what matters is the state now, so calls may be merged or repeated."""

    def on_add(self, obj: JsonObject) -> None:
        """An object this handler had not been told of."""
        ...

    def on_update(self, old: JsonObject, new: JsonObject) -> None:
        """The object it was told of as `old` is now `new`."""
        ...

    def on_delete(self, obj: JsonObject, *, final_state_unknown: bool) -> None:
        """The object is gone; `obj` is its last state, or the last that was seen when the deletion itself was missed."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as it is kept: encoded, so that every reader decodes a copy of its own."""

    uid: str
    encoded: bytes
    indexed: tuple[tuple[str, str], ...]

    def decode(self) -> JsonObject:
        """Give a fresh copy."""
        decoded: JsonObject = msgspec.json.decode(self.encoded)
        return decoded


@dataclass(slots=True)
class Gone:
    """The last state of a deleted object, until every handler was told."""

    entry: Entry
    final_state_unknown: bool


class Listener:
    """One handler, its thread, and what it has still to be told: at most one entry a key, holding the deletion that must not be lost."""

    def __init__(
        self, handler: Handler, *, entry_of: Callable[[str], Entry | None], name: str, stop: threading.Event
    ) -> None:
        self._handler = handler
        self._entry_of = entry_of
        self._stop = stop
        self._condition = threading.Condition()
        self._pending: OrderedDict[str, Gone | None] = OrderedDict()
        self._told: dict[str, Entry] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread after the stop event was set; tell whether it ended."""
        with self._condition:
            self._condition.notify_all()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)
            return not self._thread.is_alive()
        return True

    def notice(self, key: str, gone: Gone | None) -> None:
        """Remember that this key changed; `gone` is given when the object was removed."""
        with self._condition:
            # A deletion is kept when an addition follows before it was told; a later deletion takes its place.
            if gone is not None or key not in self._pending:
                self._pending[key] = gone
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._pending and not self._stop.is_set():
                    self._condition.wait()
                if self._stop.is_set():
                    return
                key, gone = self._pending.popitem(last=False)
            try:
                self._tell(key, gone)
            except Exception:  # noqa: BLE001 - the handler's fault must not end its thread
                _log.exception("Informer's handler failed", key=key)

    def _tell(self, key: str, gone: Gone | None) -> None:
        now = self._entry_of(key)
        told = self._told.get(key)
        if told is not None and (now is None or now.uid != told.uid):
            del self._told[key]
            # The tombstone at hand may be of a later object of the same name that this handler never heard of.
            known = gone is not None and gone.entry.uid == told.uid
            last = gone.entry if gone is not None and known else told
            self._handler.on_delete(
                last.decode(), final_state_unknown=not known or (gone is not None and gone.final_state_unknown)
            )
            told = None
        if now is None:
            return
        self._told[key] = now
        if told is None:
            self._handler.on_add(now.decode())
        elif told.encoded != now.encoded:
            self._handler.on_update(told.decode(), now.decode())
