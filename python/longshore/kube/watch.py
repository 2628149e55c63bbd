"""A stream of changes as the API server sends it: one JSON object a line, for minutes, over one connection.

Promises: iterating ends quietly when the server ends the stream in order, `close` was called, or nothing was heard for so long that the connection counts as
dead (`silent` tells); everything else is raised: GoneError when the version is too old, ApiUnavailableError when the connection broke or spoke nonsense.
`close` may be called by any thread and wakes a reader blocked in a read at once (it shuts the socket's reading side down).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import msgspec
import urllib3

from longshore.errors import ApiUnavailableError
from longshore.kube.requests import error_from_status
from longshore.kube.resource import JsonObject, Resource

__all__ = ["WatchEvent", "WatchEventType", "WatchStream"]


class WatchEventType(StrEnum):
    """What happened to the object of an event."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change; a bookmark's object holds nothing but its `metadata.resourceVersion`."""

    type: WatchEventType
    object: JsonObject

    @property
    def resource_version(self) -> str:
        """The version after this change."""
        return str(self.object["metadata"]["resourceVersion"])


class WatchStream:
    """An open watch; iterate it in one thread."""

    def __init__(self, response: Any, *, resource: Resource) -> None:
        """Take over an open `urllib3.HTTPResponse`."""
        self.silent = False
        """Whether it ended because nothing was heard. Not an error: a server has nothing to say of a kind that does not change."""
        self._response = response
        self._resource = resource
        self._lock = threading.Lock()
        self._closed = False
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
        self._finish()

    def close(self) -> None:
        """Wake the reader and end the stream."""
        with self._lock:
            self._closed = True
            if self._finished:
                return
            try:
                self._response.shutdown()
            except (OSError, RuntimeError, ValueError):
                # The socket is already gone, or belongs to nobody any more: the reader sees the end by itself.
                return

    def __iter__(self) -> Iterator[WatchEvent]:
        try:
            for line in self._lines():
                event = self._decode(line)
                if self._closed:
                    return
                yield event
        finally:
            self._finish()

    def _finish(self) -> None:
        with self._lock:
            if not self._finished:
                self._finished = True
                # Not given back to the pool: what is left on this connection belongs to the watch.
                self._response.close()

    def _lines(self) -> Iterator[bytes]:
        pending: list[bytes] = []
        try:
            for part in self._response.stream(amt=None, decode_content=True):
                *whole, rest = part.split(b"\n")
                for line in whole:
                    pending.append(line)
                    text = b"".join(pending)
                    pending.clear()
                    if text.strip():
                        yield text
                if rest:
                    pending.append(rest)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as err:
            if self._closed:
                return
            if isinstance(err, urllib3.exceptions.ReadTimeoutError):
                self.silent = True
                return
            raise ApiUnavailableError(
                f"the watch's connection broke: resource={self._resource}, cause={type(err).__name__}"
            ) from err
        if pending and not self._closed:
            raise ApiUnavailableError(f"the watch ended in the middle of an event: resource={self._resource}")

    def _decode(self, line: bytes) -> WatchEvent:
        try:
            decoded = msgspec.json.decode(line)
            kind, obj = decoded["type"], decoded["object"]
            if kind == "ERROR":
                raise error_from_status(obj, verb="watch", resource=self._resource)
            event = WatchEvent(WatchEventType(kind), obj)
            event.resource_version  # noqa: B018 - an event without a version is as useless as one that is no JSON
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as err:
            raise ApiUnavailableError(
                f"the watch sent what is no event: resource={self._resource}, bytes={len(line)}"
            ) from err
        return event
