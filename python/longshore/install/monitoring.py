"""What Prometheus and Grafana are given: scraping, alerts, a dashboard. Each is there when it is asked for, for each needs definitions of others."""

from __future__ import annotations

from typing import Any, Final

from longshore.install.alerts import RULES
from longshore.install.dashboard import dashboard
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
            # Our own labels `namespace` and `pod` are those of a volume: without honorLabels they would make room for those of the pod that is asked.
            {
                "port": "metrics",
                "path": "/metrics",
                "interval": Value("monitoring.podMonitor.interval"),
                "honorLabels": True,
            }
        ],
    },
}
_RULES: Final[dict[str, Any]] = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": metadata("longshore", component="monitoring", labels={SPLICE: Value("monitoring.rules.labels")}),
    "spec": {"groups": [{"name": "longshore", "rules": RULES}]},
}
_DASHBOARD: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": metadata(
        "longshore-dashboard", component="monitoring", labels={SPLICE: Value("monitoring.dashboard.labels")}
    ),
    "data": {"longshore.json": dashboard()},
}
PARTS: Final = (
    Part("monitoring-scrape", "What Prometheus scrapes.", ((Value("monitoring.podMonitor.enabled"), _MONITOR),)),
    Part("monitoring-alerts", "The alerts.", ((Value("monitoring.rules.enabled"), _RULES),)),
    Part("monitoring-dashboard", "The Grafana dashboard.", ((Value("monitoring.dashboard.enabled"), _DASHBOARD),)),
)
