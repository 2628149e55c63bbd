"""The proxy that lies: each lie is told once, as planned, and everything else comes through unharmed."""

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from tests.support.fault_proxy import Fault, FaultProxy, Plan, Request, nth, share

BODY = bytes(range(256)) * 4096


class Upstream:
    """A server that keeps what is put, and says what it was asked."""

    def __init__(self) -> None:
        outer = self
        self.objects: dict[str, bytes] = {}
        self.hosts: set[str | None] = set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, body: bytes = b"", *, chunked: bool = False) -> None:
                outer.hosts.add(self.headers["Host"])
                self.send_response(status)
                if chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                    return
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_PUT(self) -> None:
                outer.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(200)

            def do_GET(self) -> None:
                if "list-type=2" in self.path:
                    self.answer(200, b"<ListBucketResult/>", chunked=True)
                else:
                    found = outer.objects.get(self.path)
                    self.answer(200 if found is not None else 404, found or b"")

            do_HEAD = do_GET  # noqa: N815 - a name that the standard library looks for

            def do_DELETE(self) -> None:
                outer.objects.pop(self.path, None)
                self.answer(204)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.url) as made:
        yield made


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(proxy.endpoint_url.removeprefix("http://"), timeout=20)
    yield made
    made.close()


def ask(client: http.client.HTTPConnection, verb: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(verb, path, body=body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_what_is_not_planned_passes_unharmed_over_one_connection(
    upstream: Upstream, proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    assert ask(client, "PUT", "/b/a%20b", BODY) == (200, b"")
    socket = client.sock
    assert ask(client, "GET", "/b/a%20b") == (200, BODY)
    assert ask(client, "GET", "/b/none") == (404, b"")
    assert ask(client, "GET", "/b?list-type=2&prefix=x") == (200, b"<ListBucketResult/>")
    client.request("HEAD", "/b/a%20b")
    answer = client.getresponse()
    assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, str(len(BODY)), b"")
    assert ask(client, "DELETE", "/b/a%20b") == (204, b"")
    assert client.sock is socket
    assert upstream.objects == {}
    assert upstream.hosts == {proxy.endpoint_url.removeprefix("http://")}
    assert proxy.counts == {"PUT": 1, "GET": 2, "LIST": 1, "HEAD": 1, "DELETE": 1}
    assert proxy.body_bytes == {"PUT": len(BODY), "GET": len(BODY), "LIST": len(b"<ListBucketResult/>")}
    assert proxy.requests[0] == Request(1, 1, "PUT", "/b/a b", len(BODY))
    assert proxy.requests[0].headers["content-length"] == str(len(BODY))
    assert proxy.busy_max["GET"] == 1
    assert proxy.struck == []


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        (Fault.error(500, "InternalError"), 500, b"InternalError", None),
        (Fault.slow_down(retry_after_seconds=2), 503, b"SlowDown", "2"),
        (Fault.expired_token(), 400, b"ExpiredToken", None),
    ],
)
def test_refusals_look_like_s3s_and_do_nothing(
    upstream: Upstream,
    proxy: FaultProxy,
    client: http.client.HTTPConnection,
    fault: Fault,
    status: int,
    code: bytes,
    retry_after: str | None,
) -> None:
    proxy.plan = nth("PUT", 1, fault)
    client.request("PUT", "/b/x", body=BODY)
    answer = client.getresponse()
    assert (answer.status, answer.getheader("Retry-After")) == (status, retry_after)
    assert b"<Code>" + code + b"</Code>" in answer.read()
    assert upstream.objects == {}
    assert ask(client, "PUT", "/b/x", b"1") == (200, b"")
    assert [(request.nth, struck) for request, struck in proxy.struck] == [(1, fault)]


@pytest.mark.parametrize(("fault", "there"), [(Fault.reset(), False), (Fault.lost(), True)])
def test_connections_are_reset_before_or_after_the_deed(
    upstream: Upstream, proxy: FaultProxy, client: http.client.HTTPConnection, fault: Fault, there: bool
) -> None:
    proxy.plan = nth("PUT", 1, fault)
    with pytest.raises(ConnectionError):
        ask(client, "PUT", "/b/x", BODY)
    assert ("/b/x" in upstream.objects) == there


def test_what_is_swallowed_is_acknowledged(
    upstream: Upstream, proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.plan = nth("PUT", 1, Fault.swallow())
    assert ask(client, "PUT", "/b/x", BODY) == (200, b"")
    assert upstream.objects == {}


def test_bodies_are_cut_and_flipped(upstream: Upstream, proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    upstream.objects["/b/x"] = BODY
    proxy.plan = nth("GET", 1, Fault.flip())
    status, body = ask(client, "GET", "/b/x")
    assert (status, len(body)) == (200, len(BODY))
    assert [at for at, (a, b) in enumerate(zip(body, BODY, strict=True)) if a != b] == [len(BODY) // 2]
    assert ask(client, "GET", "/b/x") == (200, BODY)
    proxy.plan = nth("GET", 3, Fault.cut())
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(client, "GET", "/b/x")
    assert cut.value.partial == BODY[: len(BODY) // 2]
    proxy.plan = nth("GET", 4, Fault.cut())
    upstream.objects["/b/empty"] = b""
    client.close()
    with pytest.raises(ConnectionError):
        ask(client, "GET", "/b/empty")


def test_a_seed_makes_the_same_decisions() -> None:
    def decisions(plan: Plan) -> list[Fault | None]:
        return [plan(Request(number, number, "GET", "/", 0)) for number in range(1, 1001)]

    faults = [Fault.reset(), Fault.slow_down()]
    first = decisions(share(0.3, faults, seed=1))
    assert first == decisions(share(0.3, faults, seed=1))
    assert first != decisions(share(0.3, faults, seed=2))
    assert 200 < sum(fault is not None for fault in first) < 400
    assert {fault for fault in first if fault} == set(faults)
    assert not any(decisions(share(1.0, faults, seed=1, verbs=["PUT"])))


def test_bytes_and_answers_take_the_time_that_was_asked_for(
    upstream: Upstream, proxy: FaultProxy, client: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: 100.0)
    monkeypatch.setattr("tests.support.fault_proxy.time", clock)
    proxy.delay_seconds = 0.75
    proxy.bytes_per_second = len(BODY) // 4
    upstream.objects["/b/x"] = BODY
    assert ask(client, "GET", "/b/x") == (200, BODY)
    # The client has the last part a moment before the proxy reckons what it cost.
    while proxy._busy.total():
        time.sleep(0.001)
    assert slept[0] == 0.75
    # Nobody really slept, so debt grew with each part: the last one says what the whole takes.
    assert slept[-1] == pytest.approx(4.0)


def test_a_server_that_is_gone_is_a_reset(
    upstream: Upstream, proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    upstream.server.shutdown()
    upstream.server.server_close()
    with pytest.raises(ConnectionError):
        ask(client, "GET", "/b/x")


def test_nothing_is_left_after_stop(upstream: Upstream, client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    upstream.objects["/b/x"] = BODY
    assert ask(client, "GET", "/b/x") == (200, BODY)
    proxy.stop()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(client, "GET", "/b/x")
    client.close()
    with pytest.raises(ConnectionRefusedError):
        ask(client, "GET", "/b/x")
