"""What is at work on this node now, for Prometheus: how far each job is, how many objects wait for a place, how large the local cache is.

Counted when a job ends are the sums of :mod:`longshore.metrics`; these here move while it runs, so that a rate is `deriv(longshore_job_bytes_done[5m])`, and go
with the job. As many series as jobs may run at once, and no more.

Promises: a scrape asks the data path's counters and never a store; the cache folder is walked at most once a minute.

It does not know objects.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from longshore.controllers.tasks import Tasks
from longshore.kube.clock import SYSTEM_CLOCK, Clock

__all__ = ["JobMetrics"]

_LABELS: Final = ("node", "kind", "name")
_FIELDS: Final = {
    "bytes_total": "Bytes of the volume found so far",
    "bytes_done": "Bytes of files done, read or not",
    "bytes_moved": "Bytes read from the volume, or written to it",
    "bytes_stored": "Bytes sent to the store, or fetched from it",
    "files_total": "Files found so far",
    "files_done": "Files done",
    "items_lost": "Items that were not captured or restored",
}
_CACHE_SECONDS: Final = 60.0


class JobMetrics(Collector):
    """Tells of running jobs; give it to `registry.register`."""

    def __init__(self, tasks: Tasks, *, node: str, cache_dir: Path | None, clock: Clock = SYSTEM_CLOCK) -> None:
        """Keep what is asked at each scrape.

        Args:
            cache_dir: the local cache; None for none.
        """
        self._tasks = tasks
        self._node = node
        self._cache_dir = cache_dir
        self._clock = clock
        self._lock = threading.Lock()
        self._cache: tuple[int, int] = (0, 0)
        self._looked_at: float | None = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name no metric: to register must ask nobody."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Measure now."""
        told = {name: _gauge(f"longshore_job_{name}", text) for name, text in _FIELDS.items()}
        seconds = _gauge("longshore_job_seconds", "For how long the job has been at work")
        now = self._clock.monotonic()
        for kind, key, task in self._tasks.at_work():
            labels = (self._node, kind, key.rpartition("/")[2])
            seconds.add_metric(labels, max(0.0, now - task.began_at))
            progress = task.progress()
            for name, family in told.items():
                value = getattr(progress, name, None)
                if isinstance(value, int):
                    family.add_metric(labels, value)
        waiting = GaugeMetricFamily("longshore_jobs_waiting", "Objects that wait for a place", labels=("node",))
        waiting.add_metric((self._node,), self._tasks.waiting())
        return [*told.values(), seconds, waiting, *self._of_cache(now)]

    def _of_cache(self, now: float) -> list[GaugeMetricFamily]:
        if self._cache_dir is None:
            return []
        with self._lock:
            if self._looked_at is None or now >= self._looked_at + _CACHE_SECONDS:
                self._cache, self._looked_at = _measure(self._cache_dir), now
            size, files = self._cache
        made = []
        for name, text, value in (
            ("longshore_cache_bytes", "Bytes that the local cache takes on its disk", size),
            ("longshore_cache_files", "Files of the local cache", files),
        ):
            family = GaugeMetricFamily(name, text, labels=("node",))
            family.add_metric((self._node,), value)
            made.append(family)
        return made


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=_LABELS)


def _measure(folder: Path) -> tuple[int, int]:
    """Give bytes on disk and number of files below a folder; what goes away meanwhile counts for nothing."""
    size = files = 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(one.path)
                        continue
                    size += one.stat(follow_symlinks=False).st_blocks * 512
                    files += 1
        except OSError:
            continue
    return size, files
