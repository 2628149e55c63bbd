"""Volume histories for Prometheus, computed at each scrape from the objects that the process has seen: so a restart loses none, and alerts stand on what is.

Times are given as Unix seconds, never as ages: Prometheus computes those. Several processes may tell of one volume (the server of all, an agent of its node's);
take the greatest.

It does not know informers: it is handed a way to list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from longshore.api.model import JsonObject
from longshore.controllers.volume_history import VolumeHistory, histories

__all__ = ["VolumeMetrics"]

_LABELS = ("namespace", "claim", "pod", "volume")


class VolumeMetrics(Collector):
    """Tells of volumes; give it to `registry.register`."""

    def __init__(self, list_backups: Callable[[], Iterable[JsonObject]]) -> None:
        """Keep the way to list.

        Args:
            list_backups: the PodVolumeBackups as they are known now; asked at each scrape.
        """
        self._list = list_backups

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name no metric: to register must ask nobody."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Measure now."""
        success = _gauge("last_success_timestamp_seconds", "When a backup of the volume was last Completed")
        failed = _gauge("last_backup_failed", "1 when the newest backup that ended was not Completed")
        size = _gauge("size_bytes", "Bytes of the volume's files at its last success")
        read = _gauge("last_read_bytes", "Bytes that the last success had to read")
        seconds = _gauge("last_duration_seconds", "How long the last success took")
        working = _gauge("working_since_timestamp_seconds", "Since when a backup of the volume is at work")
        waiting = _gauge("waiting_since_timestamp_seconds", "Since when a backup of the volume waits for an agent")
        for one in histories(self._list()).values():
            labels = (one.key.namespace, one.claim or one.key.claim_uid, *_pod(one))
            if one.succeeded_at is not None:
                success.add_metric(labels, one.succeeded_at.timestamp())
                size.add_metric(labels, one.size_bytes)
                read.add_metric(labels, one.read_bytes)
                seconds.add_metric(labels, one.seconds)
            if one.succeeded_at is not None or one.failed_at is not None:
                failed.add_metric(labels, float(one.failed_at is not None))
            _since(working, labels, one.working_since)
            _since(waiting, labels, one.waiting_since)
        return [success, failed, size, read, seconds, working, waiting]


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"longshore_volume_{name}", text, labels=_LABELS)


def _pod(one: VolumeHistory) -> tuple[str, str]:
    # A claim's series outlives its pods, so the pod is no label of it.
    return ("", "") if one.key.claim_uid else (one.key.pod, one.key.volume)


def _since(gauge: GaugeMetricFamily, labels: tuple[str, ...], at: datetime | None) -> None:
    if at is not None:
        gauge.add_metric(labels, at.timestamp())
