"""A node agent under the custom resource definitions that Velero itself lays down, of its oldest and newest version served: out, killed, and back.

`velero install --crds-only` of the real program prints them. They drop every field that Velero of that version does not know, among them those in which our
agent shows whose an object is; what the agent needs it keeps where nothing is dropped.
"""

import os
import signal
import subprocess

import pytest

from tests.cluster.conftest import require
from tests.cluster.node_rig import Cluster, credentials_of, fill, keys_in_store, location_of, tree, wait_for
from tests.support.components import require_tool

# What the definitions of a version are known to drop; should one keep it, this file shows nothing any more.
DROPPED = {
    "1.9.3": {"podvolumebackups": {"instance", "node", "incrementalBytes"}, "podvolumerestores": {"instance", "node"}},
    "1.18.2": {"podvolumebackups": {"instance", "node"}, "podvolumerestores": {"instance"}},
}


@pytest.fixture(params=DROPPED)
def under_velero(request, own_api_server, s3_server, bucket, tmp_path):
    """Give a node in a cluster with the definitions of one Velero, and that version."""
    version = request.param
    require(lambda: require_tool("velero", version=version))
    printed = subprocess.run(
        [require_tool("velero", version=version), "install", "--crds-only", "--dry-run", "-o", "yaml"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
        timeout=120,
    )
    definitions = tmp_path / "definitions.yaml"
    definitions.write_bytes(printed.stdout)
    own_api_server.kubectl("apply", "--server-side", "-f", str(definitions))
    names = [
        f"crd/{plural}.velero.io" for plural in ("podvolumebackups", "podvolumerestores", "backupstoragelocations")
    ]
    own_api_server.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    own_api_server.kubectl("create", "namespace", "velero")
    made = Cluster(
        own_api_server,
        "velero",
        tmp_path / "node",
        location=location_of(s3_server, bucket),
        credentials=credentials_of(s3_server),
    )
    yield made, version
    made.close()


def test_out_and_back(under_velero):
    cluster, version = under_velero
    uid, path = cluster.pod("db-0")
    fill(path, seed=7, megabytes=16)
    expected = tree(path)
    cluster.backup("out", "db-0", uid)
    cluster.agent()
    status = cluster.wait_phase("podvolumebackups", "out")
    assert status["phase"] == "Completed" and status["snapshotID"].startswith("ls0-"), (status, cluster.logs())
    assert status["path"] == str(path) and status["startTimestamp"] <= status["completionTimestamp"]
    assert status["progress"]["bytesDone"] == status["progress"]["totalBytes"] > 16 << 20
    back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
    cluster.restore("in", "back-0", back, status["snapshotID"])
    restored = cluster.wait_phase("podvolumerestores", "in")
    assert restored["phase"] == "Completed", (restored, cluster.logs())
    assert tree(target) == expected
    for plural, found in (("podvolumebackups", status), ("podvolumerestores", restored)):
        assert not DROPPED[version][plural] & set(found)


def test_killed_in_the_middle(under_velero):
    """The next agent knows that the object was another's, by what these definitions keep, and makes no second snapshot."""
    cluster, _version = under_velero
    uid, path = cluster.pod("db-0")
    fill(path, seed=8, megabytes=80)
    cluster.backup("out", "db-0", uid)
    agent = cluster.agent()
    cluster.wait_phase("podvolumebackups", "out", "InProgress")
    first = cluster.get("podvolumebackups", "out")["metadata"]["annotations"]["longshore.io/instance"]
    os.kill(agent.pid, signal.SIGKILL)
    agent.stop()
    agent = cluster.agent()
    status = cluster.wait_phase("podvolumebackups", "out")
    assert status["phase"] == "Completed", (status, cluster.logs())
    annotations = cluster.get("podvolumebackups", "out")["metadata"]["annotations"]
    assert annotations["longshore.io/instance"] != first and annotations["longshore.io/attempts"] == "2"
    assert len([key for key in keys_in_store(cluster) if "/snapshots/" in key]) == 1
    back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
    cluster.restore("in", "back-0", back, status["snapshotID"])
    cluster.wait_phase("podvolumerestores", "in", "InProgress", "Completed")
    os.kill(agent.pid, signal.SIGKILL)
    agent.stop()
    cluster.agent()
    restored = cluster.wait_phase("podvolumerestores", "in")
    assert restored["phase"] == "Completed", (restored, cluster.logs())
    assert tree(target) == tree(path)


def test_deleted_while_it_runs(under_velero):
    """Where no definition knows cancelling, a deletion that a finalizer holds up comes to its end all the same."""
    cluster, version = under_velero
    uid, path = cluster.pod("db-0")
    fill(path, seed=9, megabytes=160)
    cluster.backup("out", "db-0", uid)
    where = ("velero.io", "v1", cluster.namespace, "podvolumebackups", "out")
    finalizers = ["velero.io/pod-volume-finalizer", "example.com/look"]
    cluster.custom.patch_namespaced_custom_object(*where, {"metadata": {"finalizers": finalizers}})
    cluster.agent()
    cluster.wait_phase("podvolumebackups", "out", "InProgress")
    cluster.custom.delete_namespaced_custom_object(*where)
    status = cluster.wait_phase("podvolumebackups", "out")
    assert status["phase"] in {"Failed" if version == "1.9.3" else "Canceled", "Completed"}, (status, cluster.logs())
    wait_for(
        lambda: cluster.get("podvolumebackups", "out")["metadata"]["finalizers"] == ["example.com/look"],
        seconds=30,
        what="the finalizer of another agent is gone",
    )
