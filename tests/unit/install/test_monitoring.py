"""What Prometheus and Grafana are given fits what the processes serve: each metric that alerts and dashboard ask for, each label that they group by."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from scripts.dashboard.board import metric_names, read

from longshore.controllers.datapath_metrics import DataPathMetrics
from longshore.controllers.job_metrics import JobMetrics
from longshore.controllers.tasks import Tasks
from longshore.controllers.volume_metrics import VolumeMetrics
from longshore.datapath import Counts, Lookups
from longshore.install.dashboard import QUERIES, dashboard
from longshore.install.release import objects
from longshore.install.values import merged
from longshore.kube.clock import SYSTEM_CLOCK
from longshore.metrics import AgentMetrics, ServerMetrics
from longshore.runtime.manager import Manager
from longshore.runtime.metrics import ManagerMetrics, PrometheusQueueMetrics

FAILED = "longshore_volume_last_backup_failed"


def installed(kind, **part):
    values = merged({"monitoring": {name: {"enabled": True} for name in part} | part})
    return [one for one in objects(values, namespace="velero") if one["kind"] == kind]


def backup(phase, *, hours_ago, name, claim="uid-1"):
    at = (datetime.now(UTC) - timedelta(hours=hours_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {} if phase in {"", "InProgress"} else {"completionTimestamp": at}
    return {
        "metadata": {"name": name, "creationTimestamp": at, "labels": {"velero.io/pvc-uid": claim}},
        "spec": {
            "node": "n",
            "pod": {"namespace": "shop", "name": "db-0"},
            "volume": "data",
            "backupStorageLocation": "default",
            "repoIdentifier": "",
        },
        "status": {"phase": phase, "startTimestamp": at, **ended, "progress": {"totalBytes": 7}},
    }


NOTHING = Counts(store_requests={"get": 0}, store_errors={"unavailable": 0}, cache_lookups={"index": Lookups(0, 0)})


@pytest.fixture
def served():
    registry = CollectorRegistry()
    AgentMetrics(registry, node="n", running=lambda: 0, concurrency=1)
    server = ServerMetrics(registry)
    server.location("default", available=True)
    server.repository("BackupRepository", "r", ready=True, key_at_risk=False)
    for operation in ("maintenance", "verification"):
        server.maintenance("BackupRepository", "r", operation=operation, due=1.0, succeeded=1.0, failed=False)
        server.run_ended("BackupRepository", "r", operation=operation, succeeded=True, seconds=1.0, freed=1)
    queue = PrometheusQueueMetrics(registry)
    queue.depth("q", 1)
    registry.register(ManagerMetrics(Manager(clock=SYSTEM_CLOCK)))
    phases = ("Completed", "Failed", "InProgress", "")
    found = [backup(phase, hours_ago=9 - at, name=f"b{at}") for at, phase in enumerate(phases)]
    registry.register(VolumeMetrics(lambda: found))
    registry.register(DataPathMetrics(lambda: NOTHING, labels={"node": "n"}))
    registry.register(JobMetrics(Tasks(concurrency=1), node="n", cache_dir=Path("/nowhere")))
    return generate_latest(registry).decode()


def unserved(exprs, served):
    asked = set().union(*map(metric_names, exprs))
    assert len(asked) > 0
    return asked - {line.split()[2] for line in served.splitlines() if line.startswith("# TYPE")}


def test_what_the_dashboard_asks_for_is_served(served):
    assert len(set().union(*map(metric_names, QUERIES))) > 10
    assert unserved(QUERIES, served) == set()
    assert f'{FAILED}{{claim="uid-1",namespace="shop",pod="",volume=""}} 1.0' in served
    assert 'longshore_volume_size_bytes{claim="uid-1",namespace="shop",pod="",volume=""} 7.0' in served


def test_last_success_and_its_duration_are_told_by_namespace_and_volume():
    """A claim by its name, without pod and volume; what has none by these. A failure after it takes nothing of that away."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def one(name, minutes, phase, *, took=90, claim="orders", pod="db-0"):
        made = backup(phase, hours_ago=0, name=name, claim="uid-1" if claim else "")
        begun = at + timedelta(minutes=minutes)
        made["metadata"]["annotations"] = {"velero.io/pvc-name": claim} if claim else {}
        made["metadata"]["creationTimestamp"] = made["status"]["startTimestamp"] = f"{begun:%Y-%m-%dT%H:%M:%SZ}"
        made["status"]["completionTimestamp"] = f"{begun + timedelta(seconds=took):%Y-%m-%dT%H:%M:%SZ}"
        made["status"]["incrementalBytes"] = 5
        made["spec"]["pod"]["name"] = pod
        return made

    registry = CollectorRegistry()
    found = [one("old", 0, "Completed", took=9), one("new", 10, "Completed"), one("bad", 20, "Failed", took=1)]
    found.append(one("free", 30, "Completed", took=4, claim="", pod="web-1"))
    registry.register(VolumeMetrics(lambda: found))

    def told(name, **labels):
        return registry.get_sample_value(
            f"longshore_volume_{name}", {"namespace": "shop", "claim": "", "pod": "", "volume": "", **labels}
        )

    claimed, free = {"claim": "orders"}, {"pod": "web-1", "volume": "data"}
    assert told("last_success_timestamp_seconds", **claimed) == at.timestamp() + 10 * 60 + 90
    assert told("last_success_timestamp_seconds", **free) == at.timestamp() + 30 * 60 + 4
    assert (told("last_duration_seconds", **claimed), told("last_duration_seconds", **free)) == (90.0, 4.0)
    assert (told("last_backup_failed", **claimed), told("last_backup_failed", **free)) == (1.0, 0.0)
    assert (told("size_bytes", **claimed), told("last_read_bytes", **claimed)) == (7.0, 5.0)


def test_what_the_page_has_prometheus_compute_is_served(served):
    page = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "monitoring.md").read_text()
    exprs = [said for said in re.findall(r"`([^`]+)`", page) if metric_names(said) and re.search(r"[(/]", said)]
    assert len(exprs) >= 4
    assert unserved(exprs, served) == set()


def test_what_alerts_ask_for_is_served(served):
    (made,) = installed("PrometheusRule", rules={"enabled": True})
    assert unserved([str(rule["expr"]) for rule in made["spec"]["groups"][0]["rules"]], served) == set()


def test_a_metric_that_nobody_serves_is_noticed(served):
    assert unserved(["sum(rate(longshore_volume_bytes_sum[5m]))"], served) == {"longshore_volume_bytes_sum"}


def test_counters_begin_at_nought(served):
    """One that is born with its first value hides it from `increase`."""
    counters = [
        line.split()[2] for line in served.splitlines() if line.startswith("# TYPE") and line.endswith("counter")
    ]
    rooms = ("longshore_volume_", "longshore_pod_volume_", "longshore_store_", "longshore_cache_")
    mine = [name for name in counters if name.startswith(rooms)]
    assert len(mine) == 7
    for name in mine:
        values = {line.rpartition(" ")[2] for line in served.splitlines() if line.startswith(f"{name}{{")}
        assert values == {"0.0"}, name
    assert 'longshore_pod_volume_operations_total{kind="PodVolumeRestore",node="n",phase="Failed"} 0.0' in served


def test_a_scrape_keeps_the_labels_of_volumes():
    """`namespace` and `pod` are what the operator calls its targets too; without honorLabels those would win."""
    (made,) = installed("PodMonitor", podMonitor={"enabled": True})
    assert all(endpoint["honorLabels"] is True for endpoint in made["spec"]["podMetricsEndpoints"])


def test_dashboard_is_whole():
    made = json.loads(dashboard())
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"]) == len(QUERIES)
    _, panels = read(dashboard())
    assert [target.expr for panel in panels for target in panel.targets] == list(QUERIES)
    assert len({panel.title for panel in panels}) == len(panels)
    # Rows are full: a hole in the grid is a panel that slipped.
    assert sum(panel.width * panel.height for panel in panels) == 24 * max(panel.y + panel.height for panel in panels)


def test_dashboard_is_found_by_the_sidecar():
    found = [
        one for one in installed("ConfigMap", dashboard={"enabled": True}) if "longshore.json" in one.get("data", {})
    ]
    (made,) = found
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1" and made["data"]["longshore.json"] == dashboard()
