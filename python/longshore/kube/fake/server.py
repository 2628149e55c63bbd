"""The HTTP face of the fake API server: paths to verbs, JSON in and out, watches as chunked streams.

Promises: it listens on loopback at a port that the kernel chose and is ready when the constructor's `start` returns (a few milliseconds); `stop` ends every
connection and every thread that it started; `go_down` and `come_back` stand for an API server that is restarted on the same address with its etcd intact.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from longshore.errors import UsageError
from longshore.kube.clock import SYSTEM_CLOCK, Clock
from longshore.kube.fake.faults import Faults
from longshore.kube.fake.handler import Handler
from longshore.kube.fake.kinds import Kind
from longshore.kube.fake.store import Store
from longshore.kube.resource import JsonObject, Resource

__all__ = ["FakeApiServer", "Seen"]

_THREAD_JOIN_SECONDS: Final = 5.0
_SEEN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that was answered, for tests that count."""

    at: float
    """Monotonic seconds of the machine's clock."""
    verb: str
    resource: str
    namespace: str | None
    name: str | None
    code: int
    """0 when the connection was dropped without an answer."""


class _Listener(ThreadingHTTPServer):
    """Threads and connections are tracked so that all of them can be ended."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: FakeApiServer) -> None:
        self.owner = owner
        self._open: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._guard = threading.Lock()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve_one, args=(request, client_address), name="fake-api-connection", daemon=True
        )
        with self._guard:
            self._open[id(request)] = (request, thread)
        thread.start()

    def _serve_one(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._open.pop(id(request), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are the daily bread of fault tests; faults of the server itself are answered with 500 by the handler."""

    def end_connections(self) -> None:
        with self._guard:
            pairs = list(self._open.values())
        for request, _thread in pairs:
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        ends = time.monotonic() + _THREAD_JOIN_SECONDS
        for _request, thread in pairs:
            if thread is not threading.current_thread():
                thread.join(max(0.0, ends - time.monotonic()))


class FakeApiServer:
    """An API server in this process; use it as a context manager, or call `start` and `stop`."""

    def __init__(
        self,
        *,
        kubeconfig_path: str | Path | None = None,
        token: str | None = None,
        bookmark_seconds: float = 60.0,
        history_max: int = 20_000,
        clock: Clock = SYSTEM_CLOCK,
        seed: int | None = None,
    ) -> None:
        """Prepare; nothing listens before `start`.

        Args:
            kubeconfig_path: where to write the kubeconfig; None makes a temporary folder that `stop` removes.
            token: when given, requests without this bearer token get 401; see also `require_token`.
            bookmark_seconds: how often a watch gets a bookmark.
            history_max: how many changes watches can be resumed from.
            clock: for timestamps in objects.
            seed: makes generated names and uids the same every time.
        """
        self.faults: Final = Faults()
        self.store: Final = Store(clock=clock, rng=random.Random(seed), history_max=history_max)  # noqa: S311 - names, not secrets
        self.bookmark_seconds = bookmark_seconds
        self.stopping = threading.Event()
        self.seen: Final[deque[Seen]] = deque(maxlen=_SEEN_MAX)
        self.watch_epoch = 0
        self._token = token
        self._given_path = None if kubeconfig_path is None else Path(kubeconfig_path)
        self._folder: Path | None = None
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    # -- life ------------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Listen and write the kubeconfig."""
        if self._listener is not None:
            raise UsageError("the server runs already")
        self._listen()
        if self._given_path is None and self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="longshore-fake-api-"))
        self.write_kubeconfig(self.kubeconfig_path)
        return self

    def stop(self) -> None:
        """End everything; the state stays readable through `store`."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def go_down(self) -> None:
        """Be unreachable: every connection ends and new ones are refused."""
        self._end()

    def come_back(self) -> None:
        """Be reachable again at the same address."""
        if self._listener is None:
            self._listen()

    def disconnect_watches(self) -> None:
        """End all watches in order, as a server does that wants to rebalance its clients."""
        with self.store.changed:
            self.watch_epoch += 1
            self.store.changed.notify_all()

    def _listen(self) -> None:
        self.stopping.clear()
        self._listener = _Listener(("127.0.0.1", self._port), self)
        self._port = self._listener.server_address[1]
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-api-listener", daemon=True
        )
        self._thread.start()

    def _end(self) -> None:
        listener, thread = self._listener, self._thread
        self._listener = self._thread = None
        if listener is None or thread is None:
            return
        self.stopping.set()
        with self.store.changed:
            self.store.changed.notify_all()
        listener.shutdown()
        listener.server_close()
        listener.end_connections()
        thread.join(_THREAD_JOIN_SECONDS)

    # -- access ----------------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def kubeconfig_path(self) -> Path:
        """The kubeconfig that leads here."""
        if self._given_path is not None:
            return self._given_path
        if self._folder is None:
            raise UsageError("the server does not run")
        return self._folder / "kubeconfig"

    @property
    def kubeconfig(self) -> str:
        """The same as text, as fixtures of other servers have it."""
        return str(self.kubeconfig_path)

    def write_kubeconfig(self, path: str | Path) -> None:
        """Write a kubeconfig for this server, readable by the owner only."""
        user = {"token": self._token} if self._token is not None else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML; a rename, so that a client that reads at this moment sees the old or the new file.
        handle, temporary = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(msgspec.json.encode(config))
        Path(temporary).replace(target)

    def require_token(self, token: str | None) -> None:
        """Change the bearer token that is asked for, as a rotation does; the kubeconfig on disk is not touched."""
        self._token = token

    def admits(self, authorization: str | None) -> bool:
        """Whether these credentials are good."""
        scheme, _, given = (authorization or "").partition(" ")
        return self._token is None or (scheme.lower() == "bearer" and given.strip() == self._token)

    # -- state, as a test or another component would make it --------------------------------------------------------------------

    def register(
        self,
        resource: Resource,
        *,
        status_subresource: bool = False,
        schema: JsonObject | None = None,
        selectable_fields: tuple[str, ...] = (),
    ) -> None:
        """Serve a custom kind without a CustomResourceDefinition.

        Args:
            schema: openAPIV3Schema; None keeps every field.
            selectable_fields: beside `metadata.name` and `metadata.namespace`, which is all that custom resources have without a declaration.
        """
        self.store.register(
            Kind(
                resource,
                custom=True,
                generation=True,
                unconditional_update=False,
                status_subresource=status_subresource,
                schemas={} if schema is None else {resource.version: schema},
                selectable_fields=frozenset({"metadata.name", "metadata.namespace", *selectable_fields}),
            )
        )

    def put(self, resource: Resource, obj: JsonObject, *, namespace: str | None = None) -> JsonObject:
        """Create or overwrite an object whole, status included, as the kubelet or another controller would have made it; makes the namespace too."""
        kind = self._kind(resource)
        metadata = obj.get("metadata") or {}
        place = (namespace or metadata.get("namespace") or "default") if resource.namespaced else ""
        with self.store.changed:
            names = self._kind(Resource("", "v1", "namespaces", "Namespace", namespaced=False))
            if place and (("", place) not in self.store.places(names)):
                self.store.create(names, "", {"metadata": {"name": place}})
            if (place, metadata.get("name")) in self.store.places(kind):
                body = {
                    **obj,
                    "metadata": {
                        key: value for key, value in metadata.items() if key not in {"resourceVersion", "uid"}
                    },
                }
                return self.store.update(kind, place, metadata["name"], body, trusted=True)
            return self.store.create(kind, place, obj, trusted=True)

    def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> JsonObject | None:
        """One object, or None."""
        kind = self._kind(resource)
        place = (namespace or "default") if resource.namespaced else ""
        with self.store.changed:
            return self.store.get(kind, place, name) if (place, name) in self.store.places(kind) else None

    def objects(self, resource: Resource) -> list[JsonObject]:
        """All objects of a kind."""
        return self.store.page(self._kind(resource), "", lambda _obj: True).objects

    def compact(self) -> None:
        """Forget all history; see `Store.compact`."""
        self.store.compact()

    def _kind(self, resource: Resource) -> Kind:
        kind = self.store.kind(resource.group, resource.version, resource.plural)
        if kind is None:
            raise UsageError(f"the kind is not served, register it first: resource={resource}")
        return kind

    def note(self, *, verb: str, resource: str, namespace: str | None, name: str | None, code: int) -> None:
        """For the handler: remember a request."""
        self.seen.append(Seen(time.monotonic(), verb, resource, namespace, name, code))
