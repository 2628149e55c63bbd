"""What a process tells about itself over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for the kubelet.

Names that dashboards know are Velero's (`podVolume_*`, `velero_*`); what Velero never measured is `longshore_*`. Labels that name single objects are bounded:
the series of the least recently ended object goes when there are too many.

Promises: a scrape never waits for anything but this process; a port that is taken is told to the manager; no answer holds a secret.

It does not know controllers: they report through the methods here.
"""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from longshore.errors import UsageError

__all__ = ["AgentMetrics", "HttpFace", "Probe", "ServerMetrics", "split_address"]

_OBJECTS_MAX: Final = 500
_KINDS: Final = ("PodVolumeBackup", "PodVolumeRestore")
_ENDS: Final = ("Completed", "Failed", "Canceled")
_WHATS: Final = ("total", "read", "stored", "written")
_LATENCY_BUCKETS: Final = (10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0)


class Probe(Protocol):
    """The answer to a probe."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        ...

    def text(self) -> str:
        """One line for the body."""
        ...


class AgentMetrics:
    """What the node agent counts; fits `longshore.controllers.pod_volume.Observer`."""

    def __init__(self, registry: CollectorRegistry, *, node: str, running: Callable[[], int], concurrency: int) -> None:
        """Register the metrics.

        Args:
            running: how many jobs run now.
        """
        self._node = node
        # Gauges that only grow: a counter would be published with `_total` behind Velero's name.
        self._enqueued = Gauge(
            "podVolume_pod_volume_backup_enqueue_count", "PodVolumeBackups begun", ["node"], registry=registry
        )
        self._dequeued = Gauge(
            "podVolume_pod_volume_backup_dequeue_count", "PodVolumeBackups ended", ["node"], registry=registry
        )
        labels = ["node", "operation", "backupName", "pod_volume_backup"]
        self._latency = Histogram(
            "podVolume_pod_volume_operation_latency_seconds",
            "From begun to ended",
            labels,
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self._latency_gauge = Gauge(
            "podVolume_pod_volume_operation_latency_seconds_gauge", "From begun to ended", labels, registry=registry
        )
        self._ended = Counter(
            "longshore_pod_volume_operations",
            "Objects ended, by kind and phase",
            ["node", "kind", "phase"],
            registry=registry,
        )
        self._bytes = Counter(
            "longshore_volume_bytes",
            "Bytes of volumes: total is what they hold, read from them, stored in the repository, written to them",
            ["node", "what"],
            registry=registry,
        )
        self._files = Counter("longshore_volume_files", "Entries of volumes", ["node", "kind"], registry=registry)
        self._lost = Counter(
            "longshore_volume_items_lost",
            "Items that were not captured or restored",
            ["node", "kind"],
            registry=registry,
        )
        self._last_success = Gauge(
            "longshore_pod_volume_last_success_timestamp_seconds",
            "When an object of the kind last was Completed",
            ["node", "kind"],
            registry=registry,
        )
        Gauge("longshore_jobs_running", "Jobs at work", ["node"], registry=registry).labels(node).set_function(running)
        Gauge("longshore_jobs_max", "Jobs that may run at once", ["node"], registry=registry).labels(node).set(
            concurrency
        )
        self._lock = threading.Lock()
        self._objects: OrderedDict[tuple[str, ...], None] = OrderedDict()
        for gauge in (self._enqueued, self._dequeued):
            gauge.labels(node).set(0)
        # A counter that is born with its first value hides that value from `increase` and `rate`, so all that can be counted begins at nought.
        for kind in _KINDS:
            for phase in _ENDS:
                self._ended.labels(node, kind, phase)
            self._files.labels(node, kind)
            self._lost.labels(node, kind)
        for what in _WHATS:
            self._bytes.labels(node, what)

    def claimed(self, kind: str, obj: dict[str, Any]) -> None:
        """Count work that began."""
        if kind == "PodVolumeBackup":
            self._enqueued.labels(self._node).inc()
        _ = obj

    def ended(self, kind: str, obj: dict[str, Any], *, phase: str, seconds: float, outcome: Any) -> None:
        """Count work that ended."""
        self._ended.labels(self._node, kind, phase).inc()
        metadata = obj.get("metadata") or {}
        labels = metadata.get("labels") or {}
        if kind == "PodVolumeBackup":
            self._dequeued.labels(self._node).inc()
            series = (self._node, "backup", str(labels.get("velero.io/backup-name", "")), str(metadata.get("name", "")))
        else:
            series = (
                self._node,
                "restore",
                str(labels.get("velero.io/restore-name", "")),
                str(metadata.get("name", "")),
            )
        self._latency.labels(*series).observe(seconds)
        self._latency_gauge.labels(*series).set(seconds)
        self._forget_oldest(series)
        if phase == "Completed":
            self._last_success.labels(self._node, kind).set_to_current_time()
        result = getattr(outcome, "result", None)
        if result is None:
            return
        for what in _WHATS:
            size = getattr(result, f"bytes_{what}", None)
            if isinstance(size, int):
                self._bytes.labels(self._node, what).inc(size)
        self._files.labels(self._node, kind).inc(getattr(result, "files_total", 0))
        self._lost.labels(self._node, kind).inc(getattr(result, "items_lost", 0))

    def _forget_oldest(self, series: tuple[str, ...]) -> None:
        with self._lock:
            self._objects[series] = None
            self._objects.move_to_end(series)
            while len(self._objects) > _OBJECTS_MAX:
                oldest, _ = self._objects.popitem(last=False)
                for metric in (self._latency, self._latency_gauge):
                    metric.remove(*oldest)


class ServerMetrics:
    """What the server counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._location = Gauge(
            "velero_backup_location_status_gauge",
            "1 when the location is available",
            ["backup_location_name"],
            registry=registry,
        )
        self._repository = Gauge(
            "longshore_repository_ready", "1 when the repository is ready", ["kind", "name"], registry=registry
        )
        self._key_at_risk = Gauge(
            "longshore_repository_recovery_key_missing",
            "1 while the repository's key lives in this cluster only",
            ["kind", "name"],
            registry=registry,
        )
        labels = ["kind", "name"]
        self._upkeep = {
            (operation, what): Gauge(
                f"longshore_repository_{prefix}{operation}_{suffix}", text.format(operation), labels, registry=registry
            )
            for operation in ("maintenance", "verification")
            for what, prefix, suffix, text in (
                ("due", "", "due_timestamp_seconds", "When {} is due"),
                ("succeeded", "last_", "success_timestamp_seconds", "When {} last succeeded"),
                ("failed", "last_", "failed", "1 when the last {} failed"),
            )
        }
        repository = ["repository_name"]
        self._maintained = {
            True: Counter(
                "velero_repo_maintenance_success", "Maintenance runs that succeeded", repository, registry=registry
            ),
            False: Counter(
                "velero_repo_maintenance_failure", "Maintenance runs that failed", repository, registry=registry
            ),
        }
        self._maintenance_seconds = Histogram(
            "velero_repo_maintenance_duration_seconds",
            "How long maintenance took",
            repository,
            registry=registry,
            buckets=_LATENCY_BUCKETS,
        )
        self._verified = Counter(
            "longshore_repository_verifications", "Verifications, by result", [*labels, "result"], registry=registry
        )
        self._freed = Counter(
            "longshore_repository_freed_bytes", "Bytes that maintenance freed in the store", labels, registry=registry
        )

    def location(self, name: str, *, available: bool | None) -> None:
        """Set how a location was found; None when it is gone."""
        if available is None:
            _remove(self._location, name)
        else:
            self._location.labels(name).set(float(available))

    def repository(self, kind: str, name: str, *, ready: bool, key_at_risk: bool | None) -> None:
        """Set how a repository was found."""
        self._repository.labels(kind, name).set(float(ready))
        if key_at_risk is not None:
            self._key_at_risk.labels(kind, name).set(float(key_at_risk))

    def repository_gone(self, kind: str, name: str) -> None:
        """Forget a repository."""
        for gauge in (self._repository, self._key_at_risk):
            _remove(gauge, kind, name)

    def maintenance(
        self, kind: str, name: str, *, operation: str, due: float | None, succeeded: float | None, failed: bool | None
    ) -> None:
        """Set when an operation of a repository's upkeep is due, when it last succeeded, and whether it failed since; None for what is not."""
        for what, value in (("due", due), ("succeeded", succeeded), ("failed", failed)):
            if value is None:
                _remove(self._upkeep[operation, what], kind, name)
            else:
                self._upkeep[operation, what].labels(kind, name).set(float(value))

    def run_ended(self, kind: str, name: str, *, operation: str, succeeded: bool, seconds: float, freed: float) -> None:
        """Count a run of a repository's upkeep that ended."""
        if operation == "maintenance":
            self._maintained[succeeded].labels(name).inc()
            self._maintenance_seconds.labels(name).observe(max(0.0, seconds))
            self._freed.labels(kind, name).inc(max(0.0, freed))
        else:
            self._verified.labels(kind, name, "succeeded" if succeeded else "failed").inc()

    def maintenance_gone(self, kind: str, name: str) -> None:
        """Forget a repository's upkeep."""
        for gauge in self._upkeep.values():
            _remove(gauge, kind, name)
        for counter in self._maintained.values():
            _remove(counter, name)
        _remove(self._maintenance_seconds, name)
        _remove(self._freed, kind, name)
        for result in ("succeeded", "failed"):
            _remove(self._verified, kind, name, result)


def _remove(metric: Gauge | Counter | Histogram, *labels: str) -> None:
    try:
        metric.remove(*labels)
    except KeyError:
        return


def split_address(address: str) -> tuple[str, int]:
    """Read `host:port`, `:port` (all interfaces) or `[::1]:port`.

    Raises:
        UsageError: it is none of them.
    """
    host, colon, port = address.rpartition(":")
    if (
        not colon
        or not port.isascii()
        or not port.isdigit()
        or int(port) > 65535
        or ("[" in host) != host.endswith("]")
    ):
        raise UsageError(f"not an address to listen on: address={address!r}", "write it as 127.0.0.1:8085 or :8085")
    return host.strip("[]"), int(port)


def _listen(address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Listen at an address of either family; on all interfaces of both when no host is named, as Go does."""
    host, _ = address
    both = not host and socket.has_dualstack_ipv6()

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            if both:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    return Server(address, handler)


class HttpFace:
    """The HTTP server; a component for the manager."""

    def __init__(
        self,
        address: str,
        *,
        registry: CollectorRegistry,
        live: Callable[[], Probe],
        ready: Callable[[], Probe],
    ) -> None:
        """Prepare; nothing listens before `start`.

        Args:
            address: `host:port`; port 0 lets the kernel choose.
            live: asked for `/healthz`.
            ready: asked for `/readyz`.
        """
        self.name = "http"
        self._address = split_address(address)
        self._registry = registry
        self._probes: Final = {"/healthz": live, "/livez": live, "/readyz": ready}
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 before it does."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def start(self, *, failed: Callable[[BaseException], None]) -> None:
        """Listen."""
        face = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version = "longshore"
            sys_version = ""

            def do_GET(self) -> None:
                status, kind, body = face._answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
                """Scrapes and probes are no news."""

        try:
            self._server = _listen(self._address, Handler)
        except OSError as err:
            host, port = self._address
            failed(
                UsageError(
                    f"the address for metrics and probes cannot be listened on: address={host}:{port}, error={err.strerror}",
                    "choose another one with --metrics-address",
                )
            )
            return
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True
        )
        self._thread.start()

    def stop(self, *, timeout_seconds: float, clean: bool = True) -> bool:  # noqa: ARG002 - nothing is given back
        """Stop listening."""
        if self._server is None or self._thread is None:
            return True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def not_ready(self) -> str | None:
        """Never a reason: who asks has an answer."""
        return None

    def not_live(self) -> str | None:
        """Dead when its thread is."""
        return "thread ended" if self._thread is not None and not self._thread.is_alive() else None

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        probe = self._probes.get(path)
        if probe is None:
            return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found\n"
        answer = probe()
        status = HTTPStatus.OK if answer.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "text/plain; charset=utf-8", f"{answer.text()}\n".encode()
