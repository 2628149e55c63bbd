"""A node agent under custom resource definitions that are newer than it: fields that it does not know, and a version v2 beside or instead of its own."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.node_rig import Cluster, credentials_of, fill, location_of, wait_for

_OURS = Path(__file__).resolve().parents[2] / "daemonset" / "crds"
_TOMORROW = {"kept": {"as": ["it", "is"]}}


def definitions(*, v1_served=True):
    """Ours, with fields that we do not know, and with v2."""
    found = [yaml.safe_load(path.read_text()) for path in sorted(_OURS.glob("velero.io_*.yaml"))]
    for one in found:
        (version,) = one["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            schema[part]["properties"]["tomorrow"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        one["spec"]["versions"].append({**copy.deepcopy(version), "name": "v2", "storage": False})
        version["served"] = v1_served
    return found


def give(server, objects):
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    server.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=listed)
    server.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")

    def served():
        found = json.loads(server.kubectl("get", "--raw", "/apis/velero.io"))["versions"]
        return {one["version"] for one in found} == {
            version["name"] for one in objects for version in one["spec"]["versions"] if version["served"]
        }

    wait_for(served, seconds=30, what="the versions are served")


@pytest.fixture
def cluster(own_api_server, s3_server, bucket, tmp_path):
    give(own_api_server, definitions())
    own_api_server.kubectl("create", "namespace", "velero")
    place = {"location": location_of(s3_server, bucket), "credentials": credentials_of(s3_server)}
    made = Cluster(own_api_server, "velero", tmp_path / "node", **place)
    yield made
    made.close()


def test_what_is_not_known_is_kept_and_nothing_is_told(cluster):
    uid, path = cluster.pod("db-0")
    fill(path, seed=9, megabytes=8, files=20)
    cluster.backup("out", "db-0", uid, tomorrow=_TOMORROW)
    body = {"status": {"tomorrow": _TOMORROW}}
    cluster.custom.patch_namespaced_custom_object("velero.io", "v2", "velero", "podvolumebackups", "out", body)
    cluster.agent()
    status = cluster.wait_phase("podvolumebackups", "out")
    assert status["phase"] == "Completed" and status["snapshotID"], (status, cluster.logs())
    assert status["tomorrow"] == cluster.get("podvolumebackups", "out")["spec"]["tomorrow"] == _TOMORROW
    wait_for(
        lambda: {one.reason for one in cluster.core.list_namespaced_event("velero").items} >= {"Completed"},
        seconds=30,
        what="the end is told",
    )
    assert "FieldsDropped" not in {one.reason for one in cluster.core.list_namespaced_event("velero").items}


def test_version_that_is_not_served_any_more_is_told_and_waited_for(cluster):
    """The agent does nothing and says which version it needs; when that is served again it goes on by itself."""
    uid, path = cluster.pod("db-0")
    fill(path, seed=10, megabytes=8, files=20)
    cluster.backup("out", "db-0", uid)
    give(cluster.api_server, definitions(v1_served=False))
    agent = cluster.agent()

    def told():
        lines = [json.loads(line) for line in cluster.logs().splitlines() if line.startswith("{")]
        return [one for one in lines if one["msg"] == "Watch failed" and one["resource"].startswith("podvolumebackups")]

    record = wait_for(told, seconds=60, what="the agent says what is not served")[0]
    assert record["level"] == "warning" and record["error"].startswith("NotFoundError: ")
    assert record["next_step"] == "see with kubectl api-resources what is served; version v1 is needed"
    assert agent.alive
    give(cluster.api_server, definitions())
    assert cluster.wait_phase("podvolumebackups", "out")["phase"] == "Completed", cluster.logs()
