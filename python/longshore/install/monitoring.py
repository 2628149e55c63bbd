"""What Prometheus and Grafana are given: scraping, alerts, a dashboard. Each is there when it is asked for, for each needs definitions of others."""

from __future__ import annotations

from typing import Any, Final

from longshore.install.labels import Part, metadata
from longshore.install.template import SPLICE, Value

__all__ = ["PARTS"]

_MONITOR: Final[dict[str, Any]] = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PodMonitor",
    "metadata": metadata("longshore", component="monitoring", labels={SPLICE: Value("monitoring.podMonitor.labels")}),
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "longshore"}},
        "podMetricsEndpoints": [
            {"port": "metrics", "path": "/metrics", "interval": Value("monitoring.podMonitor.interval")}
        ],
    },
}
PARTS: Final = (
    Part("monitoring-scrape", "What Prometheus scrapes.", ((Value("monitoring.podMonitor.enabled"), _MONITOR),)),
)
