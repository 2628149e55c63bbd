"""The Grafana dashboard: is everything safe, what is moving, what is in the way. One row for each question."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["QUERIES", "dashboard"]

_NEWEST: Final = "max by (namespace, claim, pod, volume)"
_OLDEST: Final = 'time() - min(max by (namespace, claim) (longshore_volume_last_success_timestamp_seconds{claim!=""}))'
_READ: Final = (
    'sum(increase(longshore_volume_bytes_total{what="read"}[6h])) / '
    'sum(increase(longshore_volume_bytes_total{what="total"}[6h]))'
)
_MAINTAINED: Final = "time() - max by (name) (longshore_repository_last_maintenance_success_timestamp_seconds)"
_VERIFIED: Final = "time() - max by (name) (longshore_repository_last_verification_success_timestamp_seconds)"
_FAILING: Final = 'max by (name) ({__name__=~"longshore_repository_last_maintenance_failed|longshore_repository_last_verification_failed"})'
_PANELS: Final[tuple[tuple[str, str, str, str, int], ...]] = (
    # title, kind, unit, query, width of 24
    ("Volumes whose last backup failed", "stat", "none", f"sum({_NEWEST} (longshore_volume_last_backup_failed)) or vector(0)", 6),
    ("Oldest success of a claim", "stat", "s", _OLDEST, 6),
    ("Repositories not ready", "stat", "none", "count(longshore_repository_ready == 0) or vector(0)", 6),
    ("Keys in this cluster only", "stat", "none", "count(longshore_repository_recovery_key_missing == 1) or vector(0)", 6),
    ("Since the last maintenance, by repository", "timeseries", "s", _MAINTAINED, 8),
    ("Since the last verification, by repository", "timeseries", "s", _VERIFIED, 8),
    ("Maintenance or verification fails", "timeseries", "none", _FAILING, 8),
    ("Since the last success, by volume", "timeseries", "s", f"time() - {_NEWEST} (longshore_volume_last_success_timestamp_seconds)", 12),
    ("Size at the last success, by volume", "timeseries", "bytes", f"{_NEWEST} (longshore_volume_size_bytes)", 12),
    ("Bytes a second, by what", "timeseries", "Bps", "sum by (what) (rate(longshore_volume_bytes_total[15m]))", 12),
    ("Read of what was there", "timeseries", "percentunit", _READ, 12),
    ("Running jobs: bytes a second", "timeseries", "Bps", "clamp_min(deriv(longshore_job_bytes_done[5m]), 0)", 8),
    ("Running jobs: share done", "timeseries", "percentunit", "longshore_job_bytes_done / longshore_job_bytes_total", 8),
    ("Local cache, by node", "timeseries", "bytes", "longshore_cache_bytes", 8),
    ("Jobs at work, by node", "timeseries", "none", "longshore_jobs_running", 6),
    ("Objects that wait for a place, by node", "timeseries", "none", "longshore_jobs_waiting", 6),
    ("Waiting, by queue", "timeseries", "none", "workqueue_depth", 6),
    ("Ended, by phase", "timeseries", "none", "sum by (kind, phase) (increase(longshore_pod_volume_operations_total[1h]))", 6),
    ("Items lost", "timeseries", "none", "sum by (kind) (increase(longshore_volume_items_lost_total[1h]))", 12),
    ("Since the API server was last heard", "timeseries", "s", "longshore_informer_last_event_age_seconds", 12),
)  # fmt: skip
QUERIES: Final = tuple(panel[3] for panel in _PANELS)


def dashboard() -> str:
    """Write the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, (title, kind, unit, query, width) in enumerate(_PANELS, start=1):
        height = 4 if kind == "stat" else 8
        if x + width > 24:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(
            {
                "id": number,
                "title": title,
                "type": kind,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"x": x, "y": y, "w": width, "h": height},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": "A", "expr": query, "datasource": {"type": "prometheus", "uid": "${datasource}"}}
                ],
            }
        )
        x += width
    made = {
        "title": "Longshore",
        "uid": "longshore",
        "tags": ["backup"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": panels,
    }
    return json.dumps(made, indent=2) + "\n"
