"""What the data path has asked of stores, how they failed, and what the local cache answered, for Prometheus.

The sums are the data path's own, so requests that failed and were ridden out are seen here while every job goes on; a store that is pressed shows long before
a backup fails.

Promises: a scrape reads counters and asks no store. Every series begins at nought.

It does not know jobs or objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from longshore.datapath import Counts

__all__ = ["DataPathMetrics"]


class DataPathMetrics(Collector):
    """Tells of the whole process; give it to `registry.register`."""

    def __init__(self, counts: Callable[[], Counts], *, labels: Mapping[str, str] | None = None) -> None:
        """Keep what is asked at each scrape.

        Args:
            labels: of every series, as `node`.
        """
        self._counts = counts
        self._labels = dict(labels or {})

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Name no metric: to register must ask nobody."""
        return []

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Read the counters."""
        now = self._counts()
        requests = self._family("longshore_store_requests", "Requests to stores, failed ones included", "verb")
        errors = self._family("longshore_store_errors", "Requests that stores failed, tried again or not", "kind")
        text = "Looks into the local cache: a hit is a copy that was there and good"
        lookups = self._family("longshore_cache_lookups", text, "what", "result")
        own = tuple(self._labels.values())
        for verb, count in now.store_requests.items():
            requests.add_metric((*own, verb), count)
        for kind, count in now.store_errors.items():
            errors.add_metric((*own, kind), count)
        for what, found in now.cache_lookups.items():
            lookups.add_metric((*own, what, "hit"), found.hits)
            lookups.add_metric((*own, what, "miss"), found.misses)
        return [requests, errors, lookups]

    def _family(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(name, text, labels=(*self._labels, *labels))
