"""One connection of the fake API server: reads requests, finds what they mean, answers; follows changes for watches."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qs, urlsplit

import msgspec

from longshore.kube.fake.faults import (
    Answer,
    CutStream,
    DelayEvent,
    DropConnection,
    DuplicateEvent,
    SendError,
    Slow,
    StallStream,
)
from longshore.kube.fake.patches import PatchError, json_patch, merge_patch
from longshore.kube.fake.routes import Route, find_route, fixed_answer
from longshore.kube.fake.selectors import SelectorError, field_selector, fields_named, label_selector
from longshore.kube.fake.status import StatusError, bad_request, expired, invalid
from longshore.kube.fake.store import Change
from longshore.kube.resource import JsonObject
from longshore.logs import get_logger

if TYPE_CHECKING:
    from longshore.kube.fake.server import FakeApiServer

__all__ = ["Handler"]

_log = get_logger(__name__)

_POLL_SECONDS: Final = 0.25
_REASONS: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class _Hangup(Exception):  # noqa: N818 - not an error: the connection ends without an answer
    """Close the connection now."""


class Handler(BaseHTTPRequestHandler):
    """Serves the requests of one connection, one after another."""

    protocol_version = "HTTP/1.1"
    # Buffered, so that head and body leave in one packet: two would wait 40 ms for each other (Nagle against delayed acknowledgement).
    wbufsize = -1
    disable_nagle_algorithm = True
    server_version = "fake-kube-apiserver"

    @property
    def _api(self) -> FakeApiServer:
        return cast("FakeApiServer", self.server.owner)  # type: ignore[attr-defined]  # made by our own listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are kept in `FakeApiServer.seen` instead."""

    def do_GET(self) -> None:
        """Serve."""
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the base class looks them up by these names

    def _serve(self) -> None:
        self._seen: Route | None = None
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        try:
            if not self._api.admits(self.headers.get("Authorization")):
                raise StatusError(401, "Unauthorized", "Unauthorized")
            split = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
            fixed = fixed_answer(self._api.store, split.path)
            if fixed is not None:
                self._answer(200, fixed)
                return
            route = self._seen = find_route(self._api.store, self.command, split.path, query)
            self._serve_route(route, query, raw)
        except StatusError as err:
            self._answer(err.code, err.status, headers=err.headers)
        except (_Hangup, ConnectionError, TimeoutError):
            self._hang_up()
        except Exception:  # noqa: BLE001 - answered with 500, logged with its traceback
            _log.exception("Fake API server failed", path=self.path)
            trace = traceback.format_exc(limit=-2)
            self._answer(500, StatusError(500, "InternalError", f"fault of the fake API server: {trace}").status)

    def _note(self, code: int) -> None:
        """Remember the request before its answer leaves, so that whoever has the answer finds it noted."""
        route, self._seen = self._seen, None
        if route is not None:
            resource, namespace = route.kind.resource.plural, route.namespace or None
            self._api.note(verb=route.verb, resource=resource, namespace=namespace, name=route.name, code=code)

    # -- verbs -----------------------------------------------------------------------------------------------------------------

    def _serve_route(self, route: Route, query: dict[str, str], raw: bytes) -> None:
        action = self._strike(route, on_event=False, name=route.name)
        drop_after = False
        match action:
            case Answer(code, retry_after_seconds, reason):
                headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
                raise StatusError(
                    code, reason or _REASONS.get(code, "Unknown"), f"injected fault: {code}", headers=headers
                )
            case DropConnection(applied):
                if not applied:
                    raise _Hangup
                drop_after = True
            case Slow(seconds):
                self._idle(seconds)
            case StallStream() if route.verb != "watch":
                self._idle(None)
        if route.verb == "watch":
            self._watch(route, query, stalled=isinstance(action, StallStream))
            return
        code, body = self._unary(route, query, raw)
        if drop_after:
            raise _Hangup
        self._answer(code, body)

    def _unary(self, route: Route, query: dict[str, str], raw: bytes) -> tuple[int, JsonObject]:
        store, kind, namespace = self._api.store, route.kind, route.namespace
        match route.verb:
            case "get":
                return 200, self._shown(route, store.get(kind, namespace, str(route.name)))
            case "list":
                return 200, self._list(route, query)
            case "create":
                if kind.resource.namespaced and not namespace:
                    raise StatusError(
                        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
                    )
                body = self._body(route, raw)
                return 201, self._shown(
                    route, store.create(kind, namespace, body, dry_run=query.get("dryRun") == "All")
                )
            case "update":
                body = self._body(route, raw)
                if not body.get("metadata", {}).get("name"):
                    raise bad_request(
                        "the name of the object () does not match the name on the URL (" + str(route.name) + ")"
                    )
                return 200, self._shown(
                    route, store.update(kind, namespace, str(route.name), body, subresource=route.subresource)
                )
            case "patch":
                change = self._patch(route, raw)
                return 200, self._shown(
                    route, store.patch(kind, namespace, str(route.name), change, subresource=route.subresource)
                )
            case "delete":
                return 200, self._deleted(
                    route, store.delete(kind, namespace, str(route.name), _json(raw) if raw else None)
                )
            case _:
                matches = self._selectors(route, query)
                for obj in store.page(kind, namespace, matches).objects:
                    with contextlib.suppress(StatusError):
                        store.delete(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
                return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _body(self, route: Route, raw: bytes) -> JsonObject:
        body: JsonObject = _json(raw)
        resource = route.kind.resource
        api_version = f"{resource.group}/{route.version}" if resource.group else route.version
        for field, wanted in (("apiVersion", api_version), ("kind", resource.kind)):
            if body.get(field, wanted) != wanted:
                raise bad_request(
                    f"the {field} in the data ({body[field]}) does not match the expected {field} ({wanted})"
                )
        namespace = (body.get("metadata") or {}).get("namespace")
        if namespace and namespace != route.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        return body

    def _patch(self, route: Route, raw: bytes) -> Callable[[JsonObject], JsonObject]:
        style = (self.headers.get("Content-Type") or "").partition(";")[0].strip()
        body = _json(raw, any_shape=True)
        if style == "application/merge-patch+json":
            if not isinstance(body, dict):
                raise bad_request("a merge patch is an object")
            return lambda old: cast("JsonObject", merge_patch(old, body))
        if style == "application/json-patch+json":

            def change(old: JsonObject) -> JsonObject:
                try:
                    new = json_patch(old, body)
                except PatchError as err:
                    raise invalid(
                        route.kind.resource, str(route.name), [("<patch>", "FieldValueInvalid", str(err))]
                    ) from err
                if not isinstance(new, dict):
                    raise bad_request("the patch leaves no object")
                return new

            return change
        known = "application/json-patch+json, application/merge-patch+json"
        raise StatusError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {known}",
        )

    def _shown(self, route: Route, obj: JsonObject) -> JsonObject:
        if route.version != route.kind.resource.version:
            obj["apiVersion"] = f"{route.kind.resource.group}/{route.version}"
        return obj

    def _deleted(self, route: Route, obj: JsonObject) -> JsonObject:
        metadata, resource = obj["metadata"], route.kind.resource
        if metadata.get("deletionTimestamp") or resource.plural in {
            "pods",
            "persistentvolumeclaims",
            "persistentvolumes",
            "namespaces",
        }:
            return self._shown(route, obj)
        details = {"name": metadata["name"], "group": resource.group, "kind": resource.plural, "uid": metadata["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _selectors(self, route: Route, query: dict[str, str]) -> Callable[[JsonObject], bool]:
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        try:
            allowed = route.kind.selectable_fields
            unknown = set() if allowed is None else fields_named(fields) - allowed
            if unknown:
                raise bad_request(f"field label not supported: {min(unknown)}")
            by_label, by_field = label_selector(labels), field_selector(fields)
        except SelectorError as err:
            raise bad_request(str(err)) from err
        name, namespace = route.name, route.namespace

        def matches(obj: JsonObject) -> bool:
            metadata = obj["metadata"]
            return (
                (not namespace or metadata.get("namespace") == namespace)
                and (name is None or metadata["name"] == name)
                and by_label(obj)
                and by_field(obj)
            )

        return matches

    def _list(self, route: Route, query: dict[str, str]) -> JsonObject:
        limit = int(query.get("limit") or 0) or None
        version, place = None, None
        if query.get("continue"):
            try:
                version, *named = msgspec.json.decode(base64.urlsafe_b64decode(query["continue"]))
                place = (str(named[0]), str(named[1]))
            except (ValueError, IndexError, TypeError, msgspec.DecodeError):
                raise bad_request("continue key is not valid") from None
        elif query.get("resourceVersion", "0") != "0":
            self._must_know(query["resourceVersion"])
        page = self._api.store.page(
            route.kind,
            route.namespace,
            self._selectors(route, query),
            limit=limit,
            at_version=version,
            from_place=place,
        )
        metadata: JsonObject = {"resourceVersion": str(page.version)}
        if page.next_place is not None:
            metadata["continue"] = base64.urlsafe_b64encode(
                msgspec.json.encode([page.version, *page.next_place])
            ).decode()
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                metadata["remainingItemCount"] = page.remaining
        items = [self._shown(route, obj) for obj in page.objects]
        if not route.kind.custom:
            # As the real server does: items of Kubernetes' own kinds do not say what they are.
            items = [
                {name: value for name, value in obj.items() if name not in {"apiVersion", "kind"}} for obj in items
            ]
        resource = route.kind.resource
        api_version = f"{resource.group}/{route.version}" if resource.group else route.version
        return {"kind": f"{resource.kind}List", "apiVersion": api_version, "metadata": metadata, "items": items}

    def _must_know(self, version: str) -> int:
        try:
            number = int(version)
        except ValueError:
            raise bad_request(f'invalid resource version "{version}"') from None
        newest = self._api.store.version
        if number > newest:
            details = {
                "retryAfterSeconds": 1,
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            }
            message = f"Timeout: Too large resource version: {number}, current: {newest}"
            raise StatusError(504, "Timeout", message, details=details, headers={"Retry-After": "1"})
        return number

    # -- watches ---------------------------------------------------------------------------------------------------------------

    def _watch(self, route: Route, query: dict[str, str], *, stalled: bool) -> None:
        api = self._api
        matches = self._selectors(route, query)
        ends = time.monotonic() + float(query.get("timeoutSeconds") or 3_600)
        bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
        given = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") == "true"
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            raise bad_request("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        epoch = api.watch_epoch
        self.close_connection = True
        first: list[JsonObject] = []
        if given in {"", "0"} or initial:
            page = api.store.page(route.kind, route.namespace, matches)
            at, first = page.version, page.objects
        else:
            at = self._must_know(given)
        self._note(200)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        if stalled:
            self._idle(None)
        try:
            for obj in first:
                self._event(route, "ADDED", self._shown(route, obj))
            if initial:
                self._bookmark(route, at, initial_events_end=True)
            last_bookmark, told = time.monotonic(), at
            while not api.stopping.is_set() and api.watch_epoch == epoch:
                due = min(ends, last_bookmark + api.bookmark_seconds)
                changes, at = self._changes(route, at, until=due, epoch=epoch)
                for change in changes:
                    self._tell(route, change, matches)
                    told = change.version
                now = time.monotonic()
                if now >= last_bookmark + api.bookmark_seconds:
                    # As measured on the real server: only when there is a newer version to tell.
                    if bookmarks and at > told:
                        self._bookmark(route, at)
                        told = at
                    last_bookmark = now
                if now >= ends:
                    break
        except StatusError as err:
            # The stream is open already: a refusal travels inside it.
            self._chunk({"type": "ERROR", "object": err.status})
        if api.stopping.is_set():
            raise _Hangup
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _changes(self, route: Route, at: int, *, until: float, epoch: int) -> tuple[list[Change], int]:
        """Wait for changes of this kind, until a moment, the end of the server, or the client's leaving."""
        api, store = self._api, self._api.store
        while True:
            with store.changed:
                changes, newest = store.changes_after(at, route.kind.key)
                left = until - time.monotonic()
                if changes or left <= 0 or api.stopping.is_set() or api.watch_epoch != epoch:
                    return changes, newest
                at = newest
                store.changed.wait(min(left, _POLL_SECONDS))
            self._must_be_connected()

    def _tell(self, route: Route, change: Change, matches: Callable[[JsonObject], bool]) -> None:
        before = None if change.before is None else _json(change.before)
        after = None if change.after is None else _json(change.after)
        had, has = before is not None and matches(before), after is not None and matches(after)
        if has and after is not None:
            self._event(route, "MODIFIED" if had else "ADDED", self._shown(route, after))
        elif had and before is not None:
            # Gone from the store, or only from this watch's view: then in its last visible state, at the version of the change.
            last = _json(change.last) if after is None else before
            last["metadata"]["resourceVersion"] = str(change.version)
            self._event(route, "DELETED", self._shown(route, last))

    def _event(self, route: Route, kind: str, obj: JsonObject) -> None:
        event = {"type": kind, "object": obj}
        match self._strike(route, on_event=True, name=obj["metadata"]["name"]):
            case None:
                self._chunk(event)
            case DuplicateEvent():
                self._chunk(event)
                self._chunk(event)
            case DelayEvent(seconds):
                self._idle(seconds)
                self._chunk(event)
            case StallStream():
                self._idle(None)
            case CutStream():
                text = msgspec.json.encode(event)
                self.wfile.write(b"%x\r\n" % len(text) + text[: len(text) // 2])
                self.wfile.flush()
                raise _Hangup
            case SendError(410):
                raise expired("injected fault: too old resource version")
            case SendError(code):
                raise StatusError(code, _REASONS.get(code, "Unknown"), f"injected fault: {code}")

    def _bookmark(self, route: Route, version: int, *, initial_events_end: bool = False) -> None:
        resource = route.kind.resource
        metadata: JsonObject = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial_events_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        api_version = f"{resource.group}/{route.version}" if resource.group else route.version
        self._chunk(
            {"type": "BOOKMARK", "object": {"kind": resource.kind, "apiVersion": api_version, "metadata": metadata}}
        )

    def _chunk(self, event: JsonObject) -> None:
        text = msgspec.json.encode(event) + b"\n"
        self.wfile.write(b"%x\r\n" % len(text) + text + b"\r\n")
        self.wfile.flush()

    # -- the connection --------------------------------------------------------------------------------------------------------

    def _strike(self, route: Route, *, on_event: bool, name: str | None) -> Any:
        return self._api.faults.strike(
            on_event=on_event,
            verb=route.verb,
            resource=route.kind.resource.plural,
            namespace=route.namespace or None,
            name=name,
        )

    def _answer(self, code: int, body: JsonObject | str, *, headers: dict[str, str] | None = None) -> None:
        self._note(code)
        text = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def _idle(self, seconds: float | None) -> None:
        """Say nothing for a while (None: until the client leaves or the server ends)."""
        ends = None if seconds is None else time.monotonic() + seconds
        while ends is None or time.monotonic() < ends:
            left = _POLL_SECONDS if ends is None else min(_POLL_SECONDS, max(0.0, ends - time.monotonic()))
            if self._api.stopping.wait(left):
                raise _Hangup
            self._must_be_connected()

    def _must_be_connected(self) -> None:
        # `select` would know no descriptor above 1,023.
        waiting = select.poll()
        waiting.register(self.connection, select.POLLIN)
        if waiting.poll(0) and not self.connection.recv(1, socket.MSG_PEEK):
            raise _Hangup

    def _hang_up(self) -> None:
        self._note(0)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _json(raw: bytes, *, any_shape: bool = False) -> Any:
    try:
        decoded = msgspec.json.decode(raw)
    except msgspec.DecodeError as err:
        raise bad_request(f"couldn't get version/kind; json parse error: {err}") from err
    if not any_shape and not isinstance(decoded, dict):
        raise bad_request("the body is not an object")
    return decoded
