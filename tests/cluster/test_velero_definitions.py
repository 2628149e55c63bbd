"""The custom resource definitions that Velero itself lays down, of its oldest and newest version served: ours take all that they take, and a node agent
works under them: out, killed, and back.

`velero install --crds-only` of the real program prints them. They drop every field that Velero of that version does not know, among them those in which our
agent shows whose an object is; what the agent needs it keeps where nothing is dropped.
"""

import os
import signal
import subprocess

import pytest
import yaml

from tests.cluster.conftest import require
from tests.cluster.node_rig import ROOT, Cluster, credentials_of, fill, keys_in_store, location_of, tree, wait_for
from tests.support.components import require_tool
from tests.unit.api.samples import SAMPLES

# What the definitions of a version are known to drop; should one keep it, this file shows nothing any more.
DROPPED = {
    "1.9.3": {"podvolumebackups": {"instance", "node", "incrementalBytes"}, "podvolumerestores": {"instance", "node"}},
    "1.18.2": {"podvolumebackups": {"instance", "node"}, "podvolumerestores": {"instance"}},
}


def printed_by(version, home):
    """Give the definitions as the program of that version prints them."""
    require(lambda: require_tool("velero", version=version))
    printed = subprocess.run(
        [require_tool("velero", version=version), "install", "--crds-only", "--dry-run", "-o", "yaml"],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
        timeout=120,
    )
    return printed.stdout


def by_kind(documents):
    return {one["spec"]["names"]["kind"]: one for one in documents}


def fields_of(schema, at=""):
    """Give path → schema of every field below an object's metadata; `[]` for an element of a list, `{}` for a value of a map."""
    found = {}
    below = {f".{name}": one for name, one in (schema.get("properties") or {}).items()}
    if isinstance(schema.get("items"), dict):
        below["[]"] = schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        below["{}"] = schema["additionalProperties"]
    for name, one in below.items():
        if at + name != ".metadata":
            found |= {at + name: one, **fields_of(one, at + name)}
    return found


def paths_in(value, at=""):
    """Give the paths of what an object holds, as `fields_of` writes them; those of a map's entries under `{}` too."""
    found = set()
    if isinstance(value, dict):
        for name, one in value.items():
            for path in (f"{at}.{name}", at + "{}"):
                found |= {path, *paths_in(one, path)}
    elif isinstance(value, list):
        for one in value:
            found |= {at + "[]", *paths_in(one, at + "[]")}
    return found


KINDS = {
    "1.9.3": {"PodVolumeBackup", "PodVolumeRestore", "ResticRepository", "BackupStorageLocation"},
    "1.18.2": {"PodVolumeBackup", "PodVolumeRestore", "BackupRepository", "BackupStorageLocation"},
}


@pytest.mark.parametrize("version", KINDS)
def test_ours_take_every_field_of_veleros(version, tmp_path):
    """No field is missing, none takes less, nothing more is asked for; and the samples that go through an API server hold each of them."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = yaml.load_all(printed_by(version, tmp_path), loader)
    theirs = by_kind(one for document in documents for one in (document or {}).get("items", [document]) if one)
    ours = by_kind(yaml.safe_load(path.read_text()) for path in (ROOT / "daemonset" / "crds").glob("*.yaml"))
    assert theirs.keys() & ours.keys() == KINDS[version]
    for kind in KINDS[version]:
        (their, our) = (one[kind]["spec"] for one in (theirs, ours))
        assert their["group"] == our["group"] and their["scope"] == our["scope"]
        assert their["names"]["plural"] == our["names"]["plural"]
        assert set(their["names"].get("shortNames", ())) <= set(our["names"].get("shortNames", ()))
        (their_version,), (our_version,) = their["versions"], our["versions"]
        assert their_version["name"] == our_version["name"] and not our_version.get("subresources")
        their_schema, our_schema = (one["schema"]["openAPIV3Schema"] for one in (their_version, our_version))
        wanted, held = fields_of(their_schema), fields_of(our_schema)
        assert not wanted.keys() - held.keys(), kind
        # The object itself has a schema too, and so what it requires.
        for path, field in {"": their_schema, **wanted}.items():
            mine = {"": our_schema, **held}[path]
            where = (version, kind, path, field, mine)
            assert field.get("type") == mine.get("type"), where
            if mine.get("enum"):
                assert field.get("enum") and set(field["enum"]) <= set(mine["enum"]), where
            assert mine.get("format") in (None, field.get("format")), where
            assert not field.get("nullable") or mine.get("nullable"), where
            assert set(mine.get("required", ())) <= set(field.get("required", ())), where
            narrower = {"pattern", "maxLength", "maxItems", "minimum", "maximum", "maxProperties"}
            assert all(mine[name] == field.get(name) for name in narrower & mine.keys()), where
        sample = SAMPLES[f"{kind.lower()}-{version.rpartition('.')[0]}"]
        assert not wanted.keys() - paths_in(sample), (version, kind)


@pytest.fixture(params=DROPPED)
def under_velero(request, own_api_server, s3_server, bucket, tmp_path):
    """Give a node in a cluster with the definitions of one Velero, and that version."""
    version = request.param
    definitions = tmp_path / "definitions.yaml"
    definitions.write_bytes(printed_by(version, tmp_path))
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

    def told():
        events = cluster.core.list_namespaced_event("velero").items
        return {one.involved_object.kind: one for one in events if one.reason == "FieldsDropped"}

    events = wait_for(lambda: len(found := told()) == 2 and found, seconds=30, what="what is dropped is told by Events")
    for event in events.values():
        assert (event.type, event.count) == ("Normal", 1) and "status.instance" in event.message
        assert "; the work is done all the same; to see them apply the definitions" in event.message
    logged = [line for line in cluster.logs().splitlines() if "Definitions of the cluster drop fields" in line]
    assert len(logged) == 2


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
