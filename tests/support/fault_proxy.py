"""A liar between a client and an HTTP server: it delays, refuses, resets, loses, cuts, flips and swallows, by plan.

    with FaultProxy(server.endpoint_url) as proxy:
        proxy.plan = nth("PUT", 3, Fault.lost())
        ...
        assert proxy.counts["PUT"] == 9

Each request is handed to the plan, one at a time and in order of arrival, which says what becomes of it. So a plan that draws from a seeded
generator makes the same decisions in the same order every time; which request is the fifth is up to the client's threads.

Promises: its own port, chosen by the kernel, on loopback; requests go on as they came, `Host` included, so that signatures hold; each is
counted before anything is done with it, under PUT, GET, HEAD, DELETE, POST, or LIST for a listing of objects; no thread outlives `stop`.

Does not know: S3's semantics, beyond what an error and a listing look like; TLS.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_PART_BYTES = 256 << 10
_UPSTREAM_TIMEOUT_SECONDS = 60.0
# Headers of one connection, which the proxy makes itself.
_OWN_HEADERS = frozenset({"connection", "transfer-encoding", "expect", "keep-alive", "date", "server"})


class Kind(StrEnum):
    """What goes wrong."""

    STATUS = "status"
    RESET = "reset"
    LOST = "lost"
    CUT = "cut"
    FLIP = "flip"
    SWALLOW = "swallow"


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one request."""

    kind: Kind
    status: int = 0
    code: str = ""
    retry_after_seconds: int | None = None

    @classmethod
    def error(cls, status: int, code: str, *, retry_after_seconds: int | None = None) -> Self:
        """Answer with an error of S3's form; the server never sees the request."""
        return cls(Kind.STATUS, status, code, retry_after_seconds)

    @classmethod
    def slow_down(cls, *, retry_after_seconds: int | None = None) -> Self:
        """Answer as S3 does when asked too much."""
        return cls.error(503, "SlowDown", retry_after_seconds=retry_after_seconds)

    @classmethod
    def expired_token(cls) -> Self:
        """Answer that the session token has expired."""
        return cls.error(400, "ExpiredToken")

    @classmethod
    def reset(cls) -> Self:
        """Reset the connection before the server sees the request."""
        return cls(Kind.RESET)

    @classmethod
    def lost(cls) -> Self:
        """Let the server do it, and reset the connection instead of answering."""
        return cls(Kind.LOST)

    @classmethod
    def cut(cls) -> Self:
        """End the connection in the middle of the answer's body, or before the answer when it has none."""
        return cls(Kind.CUT)

    @classmethod
    def flip(cls) -> Self:
        """Flip one bit in the middle of the answer's body."""
        return cls(Kind.FLIP)

    @classmethod
    def swallow(cls) -> Self:
        """Say that it is done; the server never sees the request."""
        return cls(Kind.SWALLOW)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the plan and the record see it."""

    number: int
    """Of all, from 1."""
    nth: int
    """Of its verb, from 1."""
    verb: str
    path: str
    """Decoded, without query."""
    body_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Names in lower case."""


Plan = Callable[[Request], Fault | None]


def no_faults(_: Request) -> None:
    """Let everything pass."""


def nth(verb: str, number: int, fault: Fault) -> Plan:
    """Strike one request: the one of this verb with this number."""
    return lambda request: fault if (request.verb, request.nth) == (verb, number) else None


def share(part: float, faults: Sequence[Fault], *, seed: int, verbs: Sequence[str] = ()) -> Plan:
    """Strike this part of all requests, drawn from a generator with this seed.

    Args:
        part: 0.3 for three of ten.
        faults: one of them is drawn for each request that is struck.
        seed: the same makes the same decisions.
        verbs: strike only these; all when empty.
    """
    chance = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        draw, fault = chance.random(), chance.choice(faults)
        return fault if draw < part and (not verbs or request.verb in verbs) else None

    return plan


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: "FaultProxy"

    def shutdown_request(self, request: Any) -> None:
        # No shutdown first, which would send an orderly end where a reset is wanted.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: broken connections are what it is for."""


class FaultProxy:
    """The proxy. Use as a context manager, or call `start` and `stop`; every attribute may be changed while it runs."""

    def __init__(self, upstream_url: str) -> None:
        """Prepare, start nothing.

        Args:
            upstream_url: `http://host:port` of the server.
        """
        parts = urllib.parse.urlsplit(upstream_url)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._paid_until = 0.0
        self._busy: Counter[str] = Counter()
        self.plan: Plan = no_faults
        self.delay_seconds = 0.0
        """Before each request goes on."""
        self.bytes_per_second = 0
        """Of bodies, both ways together; 0 for no limit."""
        self.counts: Counter[str] = Counter()
        """Requests by verb."""
        self.busy_max: Counter[str] = Counter()
        """Most requests of a verb that were under way at once."""
        self.body_bytes: Counter[str] = Counter()
        """Bytes of bodies by verb: of requests for PUT and POST, of answers for the others."""
        self.struck: list[tuple[Request, Fault]] = []
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True
        )
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End it and every connection through it."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Begin to count anew, and let everything pass."""
        with self._lock:
            self.plan = no_faults
            for counter in (self.counts, self.busy_max, self.body_bytes):
                counter.clear()
            self.struck.clear()
            self.requests.clear()

    @contextlib.contextmanager
    def _under_way(self, verb: str, path: str, body_bytes: int, headers: Mapping[str, str]) -> Iterator[Fault | None]:
        with self._lock:
            self.counts[verb] += 1
            self._busy[verb] += 1
            self.busy_max[verb] = max(self.busy_max[verb], self._busy[verb])
            request = Request(len(self.requests) + 1, self.counts[verb], verb, path, body_bytes, headers)
            self.requests.append(request)
            fault = self.plan(request)
            if fault is not None:
                self.struck.append((request, fault))
        try:
            yield fault
        finally:
            with self._lock:
                self._busy[verb] -= 1

    def _moved(self, verb: str, length: int) -> None:
        with self._lock:
            self.body_bytes[verb] += length
            rate = self.bytes_per_second
            if not rate:
                return
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now) + length / rate
            wait = self._paid_until - now
        time.sleep(wait)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _upstream: http.client.HTTPConnection | None = None

    def setup(self) -> None:
        super().setup()
        with self.server.owner._lock:
            self.server.owner._sockets.add(self.connection)

    def finish(self) -> None:
        with self.server.owner._lock:
            self.server.owner._sockets.discard(self.connection)
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _serve(self) -> None:
        proxy = self.server.owner
        path, _, query = self.path.partition("?")
        verb = "LIST" if self.command == "GET" and "list-type=2" in query.split("&") else self.command
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with proxy._under_way(verb, urllib.parse.unquote(path), length, headers) as fault:
            time.sleep(proxy.delay_seconds)
            try:
                self._answer(verb, length, fault)
            except (OSError, http.client.HTTPException):
                self._reset()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815 - names that the standard library looks for

    def _answer(self, verb: str, length: int, fault: Fault | None) -> None:
        kind = None if fault is None else fault.kind
        if kind is Kind.RESET:
            self._reset()
        elif fault is not None and kind in {Kind.STATUS, Kind.SWALLOW}:
            for part in self._body(length):
                self.server.owner._moved(verb, len(part))
            self._say(fault)
        else:
            answer = self._forward(verb, length)
            if kind is Kind.LOST:
                answer.read()
                self._reset()
            else:
                self._pass_on(verb, answer, kind)

    def _body(self, length: int) -> Iterator[bytes]:
        left = length
        while left:
            part = self.rfile.read(min(left, _PART_BYTES))
            if not part:
                raise ConnectionError("client went away in its body")
            left -= len(part)
            yield part

    def _forward(self, verb: str, length: int) -> http.client.HTTPResponse:
        if self._upstream is None:
            host, port = self.server.owner._upstream
            self._upstream = http.client.HTTPConnection(host, port, timeout=_UPSTREAM_TIMEOUT_SECONDS)
        upstream = self._upstream
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _OWN_HEADERS - {"date"}:
                upstream.putheader(name, value)
        upstream.endheaders()
        for part in self._body(length):
            self.server.owner._moved(verb, len(part))
            upstream.send(part)
        return upstream.getresponse()

    def _pass_on(self, verb: str, answer: http.client.HTTPResponse, kind: Kind | None) -> None:
        # Without a length an answer is read whole: S3 announces that of objects, and only listings and errors come in chunks.
        size = answer.length
        whole = answer.read() if size is None else None
        length = int(size or 0) if whole is None else len(whole)
        self.send_response_only(answer.status, answer.reason)
        named = answer.getheader("Content-Length")
        for name, value in answer.getheaders():
            if name.lower() not in _OWN_HEADERS and name.lower() != "content-length":
                self.send_header(name, value)
        if self.command == "HEAD" and named is not None:
            self.send_header("Content-Length", named)
        elif answer.status not in {204, 304}:
            self.send_header("Content-Length", str(length))
        middle = length // 2
        if kind is Kind.CUT and length == 0:
            self._headers_buffer: list[bytes] = []
            self._reset()
            return
        self.end_headers()
        sent = 0
        while sent < length:
            part = whole if whole is not None else answer.read(min(_PART_BYTES, length - sent))
            if not part:
                raise ConnectionError("server went away in its body")
            if kind is Kind.CUT and sent + len(part) > middle:
                self.wfile.write(part[: middle - sent])
                self.wfile.flush()
                self.close_connection = True
                return
            if kind is Kind.FLIP and sent <= middle < sent + len(part):
                at = middle - sent
                part = part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]
            self.wfile.write(part)
            if verb not in {"PUT", "POST"}:
                self.server.owner._moved(verb, len(part))
            sent += len(part)
        answer.read()

    def _say(self, fault: Fault) -> None:
        if fault.kind is Kind.SWALLOW:
            self.send_response_only(204 if self.command == "DELETE" else 200)
            self.send_header("ETag", '"0123456789abcdef0123456789abcdef"')
            body = b""
        else:
            self.send_response_only(fault.status)
            body = f"<Error><Code>{fault.code}</Code><Message>by plan</Message></Error>".encode()
            self.send_header("Content-Type", "application/xml")
        if fault.retry_after_seconds is not None:
            self.send_header("Retry-After", str(fault.retry_after_seconds))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
