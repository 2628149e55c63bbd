"""What goes wrong when a test asks for it.

A fault waits for requests (or for events of a watch) that match, lets the first `skip` of them pass, and strikes the next `times`. Several may wait at once;
the first that matches strikes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

__all__ = [
    "Answer",
    "CutStream",
    "DelayEvent",
    "DropConnection",
    "DuplicateEvent",
    "EventAction",
    "Fault",
    "Faults",
    "RequestAction",
    "SendError",
    "Slow",
    "StallStream",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with this status instead of doing anything."""

    code: int
    retry_after_seconds: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DropConnection:
    """Close the connection without an answer; with `applied` after the request was carried out, so that the caller cannot know."""

    applied: bool = False


@dataclass(frozen=True, slots=True)
class Slow:
    """Answer only after so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StallStream:
    """From this event on (or, on a watch request, from its first) the stream stays open and says nothing, not even bookmarks."""


@dataclass(frozen=True, slots=True)
class CutStream:
    """Close the connection in the middle of this event."""


@dataclass(frozen=True, slots=True)
class DuplicateEvent:
    """Send this event twice."""


@dataclass(frozen=True, slots=True)
class DelayEvent:
    """Send this event late; later ones wait behind it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SendError:
    """Send an ERROR event instead of this one and end the stream."""

    code: int = 410


RequestAction = Answer | DropConnection | Slow | StallStream
EventAction = StallStream | CutStream | DuplicateEvent | DelayEvent | SendError


@dataclass(slots=True)
class Fault:
    """One waiting fault; `struck` counts how often it has struck."""

    action: RequestAction | EventAction
    on_event: bool
    verb: str | None
    resource: str | None
    namespace: str | None
    name: str | None
    skip: int
    times: int | None
    struck: int = field(default=0)

    def matches(self, *, on_event: bool, verb: str, resource: str, namespace: str | None, name: str | None) -> bool:
        """Whether this is a request or event it waits for."""
        return (
            self.on_event == on_event
            and (self.times is None or self.struck < self.times)
            and self.verb in {None, verb}
            and self.resource in {None, resource}
            and self.namespace in {None, namespace}
            and self.name in {None, name}
        )


class Faults:
    """The faults of one server; may be changed while it serves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def inject(
        self,
        action: RequestAction,
        *,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Fault:
        """Have requests go wrong.

        Args:
            verb: get, list, watch, create, update, patch, delete or deletecollection; None means any.
            resource: plural; None means any.
            skip: how many matching requests pass first.
            times: how many are struck; None means all from then on.
        """
        return self._add(
            Fault(
                action,
                on_event=False,
                verb=verb,
                resource=resource,
                namespace=namespace,
                name=name,
                skip=skip,
                times=times,
            )
        )

    def inject_event(
        self,
        action: EventAction,
        *,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Fault:
        """Have events of watches go wrong; bookmarks are not counted."""
        return self._add(
            Fault(
                action,
                on_event=True,
                verb="watch",
                resource=resource,
                namespace=namespace,
                name=name,
                skip=skip,
                times=times,
            )
        )

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything go well from now on; streams that are stalled stay so."""
        with self._lock:
            self._waiting.clear()

    def strike(
        self, *, on_event: bool, verb: str, resource: str, namespace: str | None, name: str | None
    ) -> RequestAction | EventAction | None:
        """For the server: what goes wrong now, if anything."""
        with self._lock:
            for fault in self._waiting:
                if fault.matches(on_event=on_event, verb=verb, resource=resource, namespace=namespace, name=name):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.struck += 1
                    return fault.action
        return None
