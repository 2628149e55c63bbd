"""A real S3 server behind a proxy that makes each answer wait.

The wait stands for a network: each round trip takes 50 ms, the rate is not limited. Requests are counted by the server's own log. Promises
that the wait is there in timed runs only. Does not know any program's commands.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.components import S3Server, require_tool
from tests.support.processes import ChildProcess, ReservedPort

from benches.volume.peers import Bucket

ROUND_TRIP_MILLIS = 50


class SlowBucket:
    """A bucket and the proxy before it. Use as a context manager."""

    def __init__(self, work: Path) -> None:
        """Prepare, start nothing."""
        self._folder = work / "s3"
        self._log = work / "s3-requests"
        self._control = ReservedPort()
        self._listen = ReservedPort()
        self._proxy: ChildProcess | None = None
        self._server = S3Server(access_log=self._log)

    def __enter__(self) -> Self:
        self._server.start()
        self._folder.mkdir(exist_ok=True)
        self._proxy = ChildProcess(
            "toxiproxy",
            [require_tool("toxiproxy"), "-host", "127.0.0.1", "-port", str(self._control.number)],
            log_path=self._folder / "toxiproxy.log",
        )
        self._proxy.wait_ready(self._not_ready, timeout_seconds=30)
        upstream = self._server.endpoint_url.removeprefix("http://")
        listen = f"127.0.0.1:{self._listen.number}"
        self._call("POST", "/proxies", {"name": "s3", "listen": listen, "upstream": upstream, "enabled": True})
        return self

    def __exit__(self, *exc: object) -> None:
        if self._proxy is not None:
            self._proxy.stop()
        self._server.stop()
        self._control.close()
        self._listen.close()

    @property
    def bucket(self) -> Bucket:
        """What clients are told."""
        s = self._server
        return Bucket(
            f"http://127.0.0.1:{self._listen.number}", s.bucket("bench"), s.region, s.access_key, s.secret_key
        )

    def _not_ready(self) -> str | None:
        try:
            self._call("GET", "/version")
        except OSError as error:
            return str(error)
        return None

    def _call(self, method: str, path: str, body: object = None) -> None:
        raw = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self._control.number}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, raw, method=method), timeout=10) as answer:
            answer.read()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """In here every answer waits."""
        toxic = {
            "name": "wait",
            "type": "latency",
            "stream": "downstream",
            "attributes": {"latency": ROUND_TRIP_MILLIS},
        }
        self._call("POST", "/proxies/s3/toxics", toxic)
        try:
            yield
        finally:
            self._call("DELETE", "/proxies/s3/toxics/wait")

    def requests(self) -> int:
        """How many requests the server has answered so far."""
        return sum(1 for _ in self._log.open("rb")) if self._log.exists() else 0
