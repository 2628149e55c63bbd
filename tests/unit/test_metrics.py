"""What a process tells about itself: names that dashboards know, bounded series, probes that follow the process, and addresses of either family."""

import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from longshore.errors import UsageError
from longshore.metrics import AgentMetrics, HttpFace, split_address


@dataclass
class Answer:
    ok: bool = True

    def text(self):
        return "all is well" if self.ok else "informer has not synced"


def made():
    registry = CollectorRegistry()
    return registry, AgentMetrics(registry, node="node-1", running=lambda: 2, concurrency=3)


def told(registry):
    lines = generate_latest(registry).decode().splitlines()
    return dict(line.rpartition(" ")[::2] for line in lines if not line.startswith("#"))


def obj(name, **labels):
    return {"metadata": {"name": name, "labels": {f"velero.io/{key}": value for key, value in labels.items()}}}


def test_a_backup_is_counted_under_veleros_names():
    registry, metrics = made()
    one = obj("pvb-1", **{"backup-name": "nightly"})
    metrics.claimed("PodVolumeBackup", one)
    assert told(registry)['podVolume_pod_volume_backup_enqueue_count{node="node-1"}'] == "1.0"
    assert told(registry)['podVolume_pod_volume_backup_dequeue_count{node="node-1"}'] == "0.0"
    result = SimpleNamespace(bytes_total=100, bytes_read=40, bytes_stored=7, files_total=3, items_lost=1)
    metrics.ended("PodVolumeBackup", one, phase="Completed", seconds=61.0, outcome=SimpleNamespace(result=result))
    found = told(registry)
    series = '{backupName="nightly",node="node-1",operation="backup",pod_volume_backup="pvb-1"}'
    assert found['podVolume_pod_volume_backup_dequeue_count{node="node-1"}'] == "1.0"
    assert found[f"podVolume_pod_volume_operation_latency_seconds_gauge{series}"] == "61.0"
    assert found[f"podVolume_pod_volume_operation_latency_seconds_count{series}"] == "1.0"
    assert found['longshore_volume_bytes_total{node="node-1",what="stored"}'] == "7.0"
    assert found['longshore_volume_items_lost_total{kind="PodVolumeBackup",node="node-1"}'] == "1.0"
    assert (
        float(found['longshore_pod_volume_last_success_timestamp_seconds{kind="PodVolumeBackup",node="node-1"}']) > 1e9
    )
    assert (
        found['longshore_jobs_running{node="node-1"}'] == "2.0" and found['longshore_jobs_max{node="node-1"}'] == "3.0"
    )


def test_a_failure_is_no_success_and_needs_no_outcome():
    registry, metrics = made()
    metrics.ended("PodVolumeRestore", obj("pvr-1"), phase="Failed", seconds=0.0, outcome=None)
    found = told(registry)
    assert found['longshore_pod_volume_operations_total{kind="PodVolumeRestore",node="node-1",phase="Failed"}'] == "1.0"
    assert not [name for name in found if "last_success" in name]
    assert {found[name] for name in found if name.startswith("longshore_volume_bytes_total")} == {"0.0"}


def test_series_of_single_objects_are_bounded():
    registry, metrics = made()
    for number in range(600):
        metrics.ended("PodVolumeBackup", obj(f"pvb-{number}"), phase="Completed", seconds=1.0, outcome=None)
    gauges = [
        name for name in told(registry) if name.startswith("podVolume_pod_volume_operation_latency_seconds_gauge")
    ]
    assert len(gauges) == 500 and not [name for name in gauges if 'pod_volume_backup="pvb-99"' in name]


@pytest.fixture
def face():
    registry, _metrics = made()
    live, ready = Answer(), Answer(ok=False)
    failures = []
    one = HttpFace("127.0.0.1:0", registry=registry, live=lambda: live, ready=lambda: ready)
    one.start(failed=failures.append)
    assert failures == []
    yield one, ready
    assert one.stop(timeout_seconds=5.0)


def ask(port, path, host="127.0.0.1"):
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_follow_the_process(face):
    one, ready = face
    assert ask(one.port, "/healthz") == (200, "all is well\n") and ask(one.port, "/livez?verbose")[0] == 200
    assert ask(one.port, "/readyz") == (503, "informer has not synced\n")
    ready.ok = True
    assert ask(one.port, "/readyz")[0] == 200 and ask(one.port, "/elsewhere")[0] == 404
    assert "podVolume_pod_volume_backup_enqueue_count" in ask(one.port, "/metrics")[1]
    assert one.not_live() is None


def test_port_that_is_taken_is_told(face):
    failures = []
    second = HttpFace(f"127.0.0.1:{face[0].port}", registry=CollectorRegistry(), live=Answer, ready=Answer)
    second.start(failed=failures.append)
    (error,) = failures
    assert isinstance(error, UsageError) and "--metrics-address" in error.next_step and second.stop(timeout_seconds=1.0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("address", "hosts"), [("[::1]:0", ["[::1]"]), (":0", ["127.0.0.1", "[::1]"])])
def test_both_families_are_listened_on(address, hosts):
    failures = []
    one = HttpFace(address, registry=CollectorRegistry(), live=Answer, ready=Answer)
    one.start(failed=failures.append)
    try:
        assert failures == [] and [ask(one.port, "/healthz", host)[0] for host in hosts] == [200] * len(hosts)
    finally:
        one.stop(timeout_seconds=5.0)


@pytest.mark.parametrize("address", ["8085", "host", "host:", ":port", "::1:80:x", "[::1:80", ":70000", "1.2.3.4:-1"])
def test_nonsense_is_no_address(address):
    with pytest.raises(UsageError):
        split_address(address)
