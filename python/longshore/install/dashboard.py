"""The Grafana dashboard: is everything safe, what is moving, what is in the way. One row for each question.

Promises: a panel that may have nothing to show says when in its description, after :data:`EMPTY_WHILE`; every other one has data once server and agents
are scraped and a volume was backed up, maintained and verified. `make dashboard` asks a real Prometheus and holds it to that. Legends name what tells the
series of a panel apart, whatever labels the scrape adds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["EMPTY_WHILE", "QUERIES", "dashboard"]

EMPTY_WHILE: Final = "Empty while "
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS: Final = 24
_HEIGHTS: Final = {"stat": 4, "timeseries": 8}
_STALE_SECONDS: Final = 26 * 3600
"""As `monitoring.rules.staleHours` has it unless it is set."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One panel: `width` in columns of 24, `legend` as Grafana's legendFormat, `red_from` the value from which a number is an alarm."""

    title: str
    kind: str
    unit: str
    query: str
    width: int
    legend: str = ""
    red_from: float | None = None
    says: str = ""


_NEWEST: Final = "max by (namespace, claim, pod, volume)"
_VOLUME: Final = "{{namespace}}/{{claim}}{{pod}} {{volume}}"
_OLDEST: Final = 'time() - min(max by (namespace, claim) (longshore_volume_last_success_timestamp_seconds{claim!=""}))'
_READ: Final = (
    'sum(increase(longshore_volume_bytes_total{what="read"}[6h])) / '
    'sum(increase(longshore_volume_bytes_total{what="total"}[6h]))'
)
_MAINTAINED: Final = "time() - max by (name) (longshore_repository_last_maintenance_success_timestamp_seconds)"
_VERIFIED: Final = "time() - max by (name) (longshore_repository_last_verification_success_timestamp_seconds)"
_FAILING: Final = (
    'label_replace(max by (name) (longshore_repository_last_maintenance_failed), "what", "maintenance", "", "") or '
    'label_replace(max by (name) (longshore_repository_last_verification_failed), "what", "verification", "", "")'
)
_SPEED: Final = "clamp_min(deriv(longshore_job_bytes_done[$__rate_interval]), 0)"
_REQUESTS: Final = "sum by (verb) (rate(longshore_store_requests_total[$__rate_interval]))"
_ERRORS: Final = 'sum by (kind) (increase(longshore_store_errors_total{kind!="not_found"}[1h]))'
_HITS: Final = (
    'sum by (what) (increase(longshore_cache_lookups_total{result="hit"}[6h])) / '
    "sum by (what) (increase(longshore_cache_lookups_total[6h]) > 0)"
)
_ENDED: Final = "sum by (kind, phase) (increase(longshore_pod_volume_operations_total[1h]))"
_NO_JOB: Final = f"{EMPTY_WHILE}no job runs."
_PANELS: Final = (
    _Panel("Volumes whose last backup failed", "stat", "none", f"sum({_NEWEST} (longshore_volume_last_backup_failed)) or vector(0)", 6, red_from=1),
    _Panel("Oldest success of a claim", "stat", "s", _OLDEST, 6, red_from=_STALE_SECONDS),
    _Panel("Repositories not ready", "stat", "none", "count(max by (name) (longshore_repository_ready) == 0) or vector(0)", 6, red_from=1),
    _Panel("Keys in this cluster only", "stat", "none", "count(max by (name) (longshore_repository_recovery_key_missing) == 1) or vector(0)", 6, red_from=1),
    _Panel("Since the last maintenance, by repository", "timeseries", "s", _MAINTAINED, 8, "{{name}}"),
    _Panel("Since the last verification, by repository", "timeseries", "s", _VERIFIED, 8, "{{name}}"),
    _Panel("Maintenance or verification fails", "timeseries", "none", _FAILING, 8, "{{what}} of {{name}}"),
    _Panel("Since the last success, by volume", "timeseries", "s", f"time() - {_NEWEST} (longshore_volume_last_success_timestamp_seconds)", 12, _VOLUME),
    _Panel("Size at the last success, by volume", "timeseries", "bytes", f"{_NEWEST} (longshore_volume_size_bytes)", 12, _VOLUME),
    _Panel(
        "Bytes of jobs that ended within an hour", "timeseries", "bytes", "sum by (what) (increase(longshore_volume_bytes_total[1h]))", 12, "{{what}}",
        says="total: what the volumes hold; read from them; stored in the repository; written to them by restores.",
    ),
    _Panel(
        "Share of volumes that backups had to read", "timeseries", "percentunit", _READ, 12, "read of total",
        says=f"Over six hours. {EMPTY_WHILE}no backup ended within them.",
    ),
    _Panel("Running jobs: bytes a second", "timeseries", "binBps", _SPEED, 8, "{{name}}", says=_NO_JOB),
    _Panel("Running jobs: share done", "timeseries", "percentunit", "longshore_job_bytes_done / longshore_job_bytes_total", 8, "{{name}}", says=_NO_JOB),
    _Panel("Local cache, by node", "timeseries", "bytes", "longshore_cache_bytes", 8, "{{node}}"),
    _Panel("Requests to stores a second, by verb", "timeseries", "none", _REQUESTS, 8, "{{verb}}"),
    _Panel(
        "Errors of stores within an hour, by kind", "timeseries", "none", _ERRORS, 8, "{{kind}}",
        says="Tried again or not. unavailable is ridden out for a quarter of an hour; any other kind fails what asked.",
    ),
    _Panel(
        "Share of looks that the local cache answered", "timeseries", "percentunit", _HITS, 8, "{{what}}",
        says=f"Over six hours: index, records of snapshots, decisions of prunes, what the last backup saw of a volume. {EMPTY_WHILE}nothing was looked for.",
    ),
    _Panel("Jobs at work, by node", "timeseries", "none", "longshore_jobs_running", 8, "{{node}}"),
    _Panel("Objects that wait for a place, by node", "timeseries", "none", "longshore_jobs_waiting", 8, "{{node}}"),
    _Panel("Waiting, by queue", "timeseries", "none", "sum by (name) (workqueue_depth)", 8, "{{name}}"),
    _Panel("Ended within an hour, by phase", "timeseries", "none", _ENDED, 8, "{{kind}} {{phase}}"),
    _Panel("Items lost within an hour", "timeseries", "none", "sum by (kind) (increase(longshore_volume_items_lost_total[1h]))", 8, "{{kind}}"),
    _Panel("Since the API server was last heard", "timeseries", "s", "max by (resource) (longshore_informer_last_event_age_seconds)", 8, "{{resource}}"),
)  # fmt: skip
QUERIES: Final = tuple(panel.query for panel in _PANELS)


def dashboard() -> str:
    """Write the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(_PANELS, start=1):
        if x + panel.width > _COLUMNS:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        place = {"x": x, "y": y, "w": panel.width, "h": _HEIGHTS[panel.kind]}
        panels.append(_written(panel, number, place))
        x += panel.width
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


def _written(panel: _Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.red_from is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red_from}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    target = {"refId": "A", "expr": panel.query, "datasource": _SOURCE}
    if panel.legend:
        target["legendFormat"] = panel.legend
    return {
        "id": number,
        "title": panel.title,
        "description": panel.says,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [target],
    }
