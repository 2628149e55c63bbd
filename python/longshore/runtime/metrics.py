"""The Prometheus face of queues and informers, under the names that Kubernetes components use, so that existing dashboards and alerts fit.

Only Prometheus is known here; what is measured comes through small protocols and methods of the other modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from longshore.runtime.manager import Manager

__all__ = ["ManagerMetrics", "PrometheusQueueMetrics"]

# 10 µs … 1,000 s, one bucket a power of ten, as client-go has them.
_BUCKETS = tuple(10.0**exponent for exponent in range(-5, 4))


class PrometheusQueueMetrics:
    """What queues report, as `workqueue_*`; one object serves all queues of a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics; once for each registry."""
        self._depth = Gauge("workqueue_depth", "Items waiting for a worker", ["name"], registry=registry)
        self._adds = Counter("workqueue_adds", "Items added", ["name"], registry=registry)
        self._retries = Counter("workqueue_retries", "Items added again after a failure", ["name"], registry=registry)
        self._waited = Histogram(
            "workqueue_queue_duration_seconds", "From added to taken", ["name"], registry=registry, buckets=_BUCKETS
        )
        self._worked = Histogram(
            "workqueue_work_duration_seconds", "From taken to done", ["name"], registry=registry, buckets=_BUCKETS
        )

    def depth(self, queue: str, items: int) -> None:
        """Set how many wait."""
        self._depth.labels(queue).set(items)

    def added(self, queue: str) -> None:
        """Count one added."""
        self._adds.labels(queue).inc()

    def retried(self, queue: str) -> None:
        """Count one tried again."""
        self._retries.labels(queue).inc()

    def waited(self, queue: str, seconds: float) -> None:
        """Observe how long one waited."""
        self._waited.labels(queue).observe(seconds)

    def worked(self, queue: str, seconds: float) -> None:
        """Observe how long one was worked on."""
        self._worked.labels(queue).observe(seconds)


class ManagerMetrics(Collector):
    """Asks a manager's informers and controllers at each scrape."""

    def __init__(self, manager: Manager) -> None:
        """Measure this manager; give the object to `registry.register`."""
        self._manager = manager

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Measure now."""
        age = GaugeMetricFamily(
            "longshore_informer_last_event_age_seconds", "Since the API server was last heard", labels=["resource"]
        )
        synced = GaugeMetricFamily("longshore_informer_synced", "1 after the first whole list", labels=["resource"])
        running = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds", "The item longest worked on", labels=["name"]
        )
        for informer in self._manager.informers:
            age.add_metric([str(informer.resource)], informer.last_event_age_seconds())
            synced.add_metric([str(informer.resource)], float(informer.has_synced()))
        for controller in self._manager.controllers:
            running.add_metric([controller.name], controller.queue.longest_running_seconds())
        return [age, synced, running]
