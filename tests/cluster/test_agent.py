"""A real node agent process between a real API server and a real S3 server: out and back, killed at random moments, stopped, cut off, and in a second cluster.

The trees are compared by what the kernel says of them, in code that the engine does not share.
"""

import base64
import contextlib
import json
import os
import random
import re
import shutil
import signal
import stat
import time
import uuid

import pytest

from tests.cluster.node_rig import (
    LEASE_SECONDS,
    NODE,
    RESTORE_UID,
    ROOT,
    TERMINAL,
    Cluster,
    credentials_of,
    fill,
    keys_in_store,
    location_of,
    longshore,
    tree,
    visible_snapshots,
    wait_for,
)
from tests.oracle.make_tree import ACL_ACCESS, ACL_DEFAULT, ACL_FOR_DIRECTORY, ACL_FOR_ROOT
from tests.support.components import require_tool
from tests.support.fault_proxy import FaultProxy


def give_root_attributes(path):
    os.setxattr(path, "user.root", b"of the volume itself")
    os.setxattr(path, ACL_ACCESS, ACL_FOR_ROOT)
    os.setxattr(path, ACL_DEFAULT, ACL_FOR_DIRECTORY)


def behind(proxy, api_server, namespace, s3_server, bucket, tmp_path):
    """Give a cluster whose location is reached through this proxy."""
    location = location_of(s3_server, bucket)
    location["config"]["s3Url"] = proxy.endpoint_url
    return contextlib.closing(
        Cluster(api_server, namespace, tmp_path / "node", location=location, credentials=credentials_of(s3_server))
    )


def test_out_and_back(cluster, s3_server, bucket):
    uid, path = cluster.pod("db-0")
    fill(path, seed=1)
    (path / ".velero").mkdir()
    (path / ".velero" / "stale").touch()
    give_root_attributes(path)
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))
    expected = tree(path)
    assert {"user.root", ACL_ACCESS, ACL_DEFAULT} <= set(expected[0]["."][-1])
    cluster.backup("out", "db-0", uid)
    cluster.agent()
    seen = set()

    def ended():
        seen.add(cluster.status("podvolumebackups", "out").get("phase", "New"))
        return seen & TERMINAL

    wait_for(ended, seconds=120, what="the backup ends")
    status = cluster.status("podvolumebackups", "out")
    assert status["phase"] == "Completed", (status, cluster.logs())
    assert "InProgress" in seen
    assert status["snapshotID"].startswith("ls0-") and status["path"] == str(path) and status["node"] == NODE
    assert status["progress"]["bytesDone"] == status["progress"]["totalBytes"] > 24 << 20
    assert status["startTimestamp"] <= status["completionTimestamp"]
    keys = [one["Key"] for one in s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys and all(key.startswith(f"velero/plugins/longshore/{cluster.namespace}/") for key in keys)
    # Unchanged: nothing is read again.
    cluster.backup("again", "db-0", uid)
    again = cluster.wait_phase("podvolumebackups", "again")
    assert again["phase"] == "Completed" and again["incrementalBytes"] == 0, again
    back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
    (target / ".velero").mkdir()
    (target / ".velero" / RESTORE_UID).write_text("from before")
    cluster.restore("in", "back-0", back, status["snapshotID"])
    status = cluster.wait_phase("podvolumerestores", "in")
    assert status["phase"] == "Completed", (status, cluster.logs())
    assert tree(target) == expected
    assert os.listdir(target / ".velero") == [RESTORE_UID]


def test_volume_that_moves_to_another_node_stays_incremental(cluster):
    """Its claim is what is known of it there: the agent has another name, an empty cache, and the pod is another one."""
    cluster.claim("orders")
    uid, path = cluster.pod("db-abc", claim="orders")
    fill(path, seed=9, megabytes=16)
    cluster.agent()
    cluster.backup("out", "db-abc", uid)
    first = cluster.wait_phase("podvolumebackups", "out")
    assert first["phase"] == "Completed" and first["incrementalBytes"] > 16 << 20, (first, cluster.logs())
    cluster.core.delete_namespaced_pod("db-abc", cluster.namespace, grace_period_seconds=0)
    cluster.go_to("node-2")
    uid, moved = cluster.pod("db-xyz", claim="orders")
    path.rename(moved)
    os.utime(moved, ns=(10**18, 10**18 + 123_456_789))
    cluster.agent()
    cluster.backup("unchanged", "db-xyz", uid)
    status = cluster.wait_phase("podvolumebackups", "unchanged")
    assert status["phase"] == "Completed" and status["node"] == "node-2", (status, cluster.logs())
    assert status["incrementalBytes"] == 0, status
    assert status["progress"]["bytesDone"] == status["progress"]["totalBytes"] == first["progress"]["totalBytes"]
    (moved / "fresh").write_bytes(b"x" * 100_000)
    expected = tree(moved)
    cluster.backup("changed", "db-xyz", uid)
    status = cluster.wait_phase("podvolumebackups", "changed")
    assert status["phase"] == "Completed" and status["incrementalBytes"] == 100_000, (status, cluster.logs())
    assert status["progress"]["totalBytes"] == first["progress"]["totalBytes"] + 100_000
    back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
    cluster.restore("in", "back-0", back, status["snapshotID"])
    assert cluster.wait_phase("podvolumerestores", "in")["phase"] == "Completed" and tree(target) == expected


def test_root_of_another_user(cluster):
    uid, path = cluster.pod("db-0")
    (path / "a").write_text("x")
    if os.geteuid() == 0:
        os.chown(path, 999, 999)
    path.chmod(0o700)
    cluster.agent()
    cluster.backup("out", "db-0", uid)
    snapshot = cluster.wait_phase("podvolumebackups", "out")["snapshotID"]
    back, target = cluster.pod("back-0", waits=True, user=1000 if os.geteuid() != 1000 else 1001)
    cluster.restore("in", "back-0", back, snapshot)
    status = cluster.wait_phase("podvolumerestores", "in")
    assert status["phase"] == "Completed" and "o+x" in status["message"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o701 and target.stat().st_uid == path.stat().st_uid
    cluster.container("back-0", {"terminated": {"exitCode": 0}})
    wait_for(lambda: stat.S_IMODE(target.stat().st_mode) == 0o700, seconds=60, what="the root has its true mode")


def test_rights_are_left_out_and_named_unless_the_restore_allows_them(cluster):
    uid, path = cluster.pod("db-0")
    (path / "tool").write_text("x")
    (path / "tool").chmod(0o4755)
    cluster.agent()
    cluster.backup("out", "db-0", uid)
    snapshot = cluster.wait_phase("podvolumebackups", "out")["snapshotID"]
    for name, annotations, mode in (
        ("plain", None, 0o755),
        ("trusted", {"longshore.io/restore-allow": "setuid"}, 0o4755),
    ):
        back, target = cluster.pod(f"back-{name}", waits=True, user=os.geteuid())
        cluster.restore(name, f"back-{name}", back, snapshot, annotations=annotations)
        status = cluster.wait_phase("podvolumerestores", name)
        assert status["phase"] == "Completed" and stat.S_IMODE((target / "tool").stat().st_mode) == mode, status
        assert ("tool" in status.get("message", "")) == (annotations is None), status


@pytest.mark.timeout(900)  # 160 s on two idle cores, most of it twenty starts and lapses of the lease
def test_killed_at_twenty_random_moments(cluster):
    """After each kill the agent comes back; 60 s after the last every object has ended, and what is Completed restores."""
    chance = random.Random(20)
    uid, path = cluster.pod("db-0")
    fill(path, seed=2)
    expected = tree(path)
    cluster.backup("first", "db-0", uid)
    cluster.kept = cluster.agent()
    snapshot = cluster.wait_phase("podvolumebackups", "first")["snapshotID"]
    backups, restores = ["first"], {}
    for moment in range(20):
        if moment % 3 == 2:
            name = f"in-{moment}"
            back, target = cluster.pod(f"back-{moment}", waits=True, user=os.geteuid())
            cluster.restore(name, f"back-{moment}", back, snapshot)
            restores[name] = target
        else:
            fresh = path / "changing"
            fresh.write_bytes(chance.randbytes(6 << 20))
            name = f"out-{moment}"
            cluster.backup(name, "db-0", uid, parentSnapshot="none")
            backups.append(name)
        plural = "podvolumerestores" if name in restores else "podvolumebackups"
        cluster.wait_phase(plural, name, "InProgress", *TERMINAL, seconds=60)
        time.sleep(chance.uniform(0.0, 1.2))
        os.kill(cluster.kept.pid, signal.SIGKILL)
        cluster.kept.stop()
        cluster.kept = cluster.agent()
    came_back = time.monotonic()
    everything = [("podvolumebackups", name) for name in backups] + [("podvolumerestores", name) for name in restores]
    endings = {}
    for plural, name in everything:
        left = max(1.0, came_back + 60.0 - time.monotonic())
        endings[plural, name] = cluster.wait_phase(plural, name, seconds=left)
    assert {status["phase"] for status in endings.values()} == {"Completed"}, endings
    assert len({endings["podvolumebackups", name]["snapshotID"] for name in backups}) == len(backups)
    for name, target in restores.items():
        assert tree(target) == expected, name
        assert (target / ".velero" / RESTORE_UID).is_file()
    (path / "changing").unlink()
    for number, name in enumerate(backups):
        back, target = cluster.pod(f"check-{number}", waits=True, user=os.geteuid())
        cluster.restore(f"check-{number}", f"check-{number}", back, endings["podvolumebackups", name]["snapshotID"])
        assert cluster.wait_phase("podvolumerestores", f"check-{number}")["phase"] == "Completed"
        entries, _links = tree(target)
        changing = entries.pop("changing", None)
        assert (changing is None) == (name == "first")
        known = {entry: expected[0][entry] for entry in expected[0] if entry != "."}
        assert {entry: found for entry, found in entries.items() if entry != "."} == known
        shutil.rmtree(target)
    # That an agent ends itself is for a machine that is far too busy, and never the rule.
    assert cluster.ended <= 2, cluster.logs()[-20_000:]
    # One visible snapshot for each object, however often it was begun.
    visible = visible_snapshots(cluster)
    assert sorted(one["pvb"] for one in visible) == sorted(backups)
    assert {one["pvb"]: one["snapshotID"] for one in visible} == {
        name: endings["podvolumebackups", name]["snapshotID"] for name in backups
    }


def test_killed_with_the_lease_of_the_command_line(cluster):
    """The node's lease is left behind for its whole 15 s: the next agent touches nothing before it lapsed, and ends everything in time."""
    uid, path = cluster.pod("db-0")
    fill(path, seed=6, megabytes=160)
    cluster.backup("out", "db-0", uid)
    agent = cluster.agent(lease="default")
    before = cluster.wait_phase("podvolumebackups", "out", "InProgress")
    os.kill(agent.pid, signal.SIGKILL)
    killed = time.monotonic()
    agent.stop()
    cluster.agent(lease="default")
    found = cluster.wait_phase("podvolumebackups", "out", seconds=60)
    assert found["phase"] == "Completed" and found["instance"] != before["instance"], (found, cluster.logs())
    # Renewed at most 2 s and a little before the kill, it cannot lapse sooner.
    assert time.monotonic() - killed > 10.0
    lease = cluster.get_lease()
    assert lease.spec.lease_duration_seconds == 15 and lease.spec.holder_identity == found["instance"]
    assert len({key for key in keys_in_store(cluster) if "/snapshots/" in key}) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_agent_goes_on_where_this_one_was_stopped(crds, namespace, s3_server, bucket, tmp_path, how):
    """A third of the volume is in the store when the agent is stopped, or killed; the next one sends the rest, and says what it did not read again."""
    with (
        FaultProxy(s3_server.endpoint_url) as proxy,
        behind(proxy, crds, namespace, s3_server, bucket, tmp_path) as cluster,
    ):
        proxy.bytes_per_second = 24 << 20
        uid, path = cluster.pod("db-0")
        fill(path, seed=3, megabytes=160)
        expected = tree(path)
        cluster.backup("out", "db-0", uid)
        agent = cluster.agent()
        wait_for(lambda: proxy.body_bytes["PUT"] > 64 << 20, seconds=120, what="a part is stored")
        os.kill(agent.pid, how)
        wait_for(lambda: not agent.alive, seconds=30, what="the agent ends")
        agent.stop()
        stored = proxy.body_bytes["PUT"]
        status = cluster.status("podvolumebackups", "out")
        assert status["phase"] == "InProgress" and stored < 130 << 20, (status, stored)
        proxy.bytes_per_second = 0
        cluster.agent()
        status = cluster.wait_phase("podvolumebackups", "out")
        assert status["phase"] == "Completed", (status, cluster.logs())
        told = re.search(
            r"went on from an interrupted attempt: files_resumed=(\d+), bytes_resumed=(\d+)", status["message"]
        )
        assert told and int(told[1]) > 0 and int(told[2]) > 24 << 20, status
        # What was under way at the end is sent twice, and no more: four packs at most.
        assert proxy.body_bytes["PUT"] < (160 << 20) + 4 * (16 << 20), (proxy.body_bytes["PUT"], stored)
        assert status["progress"]["bytesDone"] == status["progress"]["totalBytes"] > 210 << 20, status
        back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
        cluster.restore("in", "back-0", back, status["snapshotID"])
        assert cluster.wait_phase("podvolumerestores", "in")["phase"] == "Completed" and tree(target) == expected


def test_jobs_stop_before_the_lease_lapses(own_api_server, s3_server, bucket, tmp_path):
    """The API server is gone in the middle of a backup: nothing is written to the store once another agent could hold the node's lease."""
    own_api_server.kubectl("apply", "--server-side", "-f", str(ROOT / "daemonset" / "crds"))
    own_api_server.kubectl("create", "namespace", "velero")
    with (
        FaultProxy(s3_server.endpoint_url) as proxy,
        behind(proxy, own_api_server, "velero", s3_server, bucket, tmp_path) as cluster,
    ):
        proxy.bytes_per_second = 16 << 20
        uid, path = cluster.pod("db-0")
        fill(path, seed=7, megabytes=240)
        cluster.backup("out", "db-0", uid)
        agent = cluster.agent()
        wait_for(lambda: proxy.body_bytes["PUT"] > 64 << 20, seconds=120, what="a part is stored")
        # What is on its way, some 20 MB, takes longer than the lease lasts: a job that waits for it cannot give up in time, and ends with its process.
        proxy.bytes_per_second = 1 << 20
        own_api_server.stop_apiserver(crash=True)
        # Renewed before the server was gone, the lease lasts no longer than this.
        time.sleep(LEASE_SECONDS["short"])
        asked = len(proxy.requests)
        # What was on its way may still arrive: nothing is asked any more.
        time.sleep(4.0)
        assert len(proxy.requests) == asked, (proxy.requests[asked:], cluster.logs()[-5_000:])
        stored = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]
        assert stored and not [one["Key"] for one in stored if "/snapshots/" in one["Key"]]
        wait_for(lambda: not agent.alive, seconds=60, what="the agent ends")
        agent.stop()
        proxy.bytes_per_second = 0
        own_api_server.start_apiserver()
        cluster.agent()
        status = cluster.wait_phase("podvolumebackups", "out")
        assert status["phase"] == "Completed" and "went on from an interrupted attempt" in status["message"], status
        (visible,) = visible_snapshots(cluster)
        assert visible["snapshotID"] == status["snapshotID"]


def test_outage_of_the_store(crds, namespace, own_s3_server, tmp_path):
    bucket = own_s3_server.bucket(f"test-{uuid.uuid4().hex[:12]}")
    cluster = Cluster(
        crds,
        namespace,
        tmp_path / "node",
        location=location_of(own_s3_server, bucket),
        credentials=credentials_of(own_s3_server),
    )
    try:
        uid, path = cluster.pod("db-0")
        fill(path, seed=4, megabytes=8)
        own_s3_server.halt()
        cluster.backup("out", "db-0", uid)
        cluster.agent()
        wait_for(
            lambda: "waiting" in cluster.status("podvolumebackups", "out").get("message", ""),
            seconds=120,
            what="the message tells of the outage",
        )
        assert cluster.status("podvolumebackups", "out")["phase"] == "InProgress"
        own_s3_server.start()
        status = cluster.wait_phase("podvolumebackups", "out", seconds=180)
        assert status["phase"] == "Completed" and not status.get("message"), status
        told = cluster.core.list_namespaced_event(namespace, field_selector="involvedObject.name=out").items
        waited = [(one.type, one.count) for one in told if one.reason == "Waiting" and "store" in one.message]
        assert waited == [("Warning", 1)], told
    finally:
        cluster.close()


@pytest.mark.parametrize("way", ["export", "recovery"])
def test_second_cluster_with_the_key_alone(cluster, own_api_server, s3_server, bucket, tmp_path, way):
    """The cluster's exported key, or a recovery key: with it and the bucket an API server with an empty etcd restores."""
    uid, path = cluster.pod("db-0")
    fill(path, seed=5, megabytes=8)
    expected = tree(path)
    cluster.backup("out", "db-0", uid)
    cluster.agent()
    snapshot = cluster.wait_phase("podvolumebackups", "out")["snapshotID"]
    at_risk = longshore(cluster, "repo", "status", "--json")
    assert json.loads(at_risk.stdout.splitlines()[0])["recovery_key_missing"], at_risk
    key = tmp_path / "kept.key"
    words = ["export", key] if way == "export" else ["add", "--new-key-file", key]
    told = longshore(cluster, "repo", "key", *words)
    assert told.returncode == 0 and stat.S_IMODE(key.stat().st_mode) == 0o600, told
    digits = key.read_text().strip().removeprefix("longshore-key-1:")
    assert len(digits) == 64 and digits not in told.stdout + told.stderr
    safe = longshore(cluster, "repo", "status", "--json")
    assert not json.loads(safe.stdout.splitlines()[0])["recovery_key_missing"], safe
    own_api_server.kubectl("apply", "--server-side", "-f", str(ROOT / "daemonset" / "crds"))
    own_api_server.kubectl("create", "namespace", "rescue")
    second = Cluster(
        own_api_server,
        "rescue",
        tmp_path / "second",
        location=location_of(s3_server, bucket),
        credentials=credentials_of(s3_server),
    )
    try:
        back, target = second.pod("back-0", waits=True, user=os.geteuid())
        second.agent()
        second.restore("too-early", "back-0", back, snapshot, source=cluster.namespace)
        status = second.wait_phase("podvolumerestores", "too-early")
        assert status["phase"] == "Failed" and "made with another key" in status["message"], status
        assert "longshore repo key import" in status["message"], status
        told = longshore(second, "repo", "key", "import", key)
        assert told.returncode == 0, told
        second.restore("in", "back-0", back, snapshot, source=cluster.namespace)
        status = second.wait_phase("podvolumerestores", "in")
        assert status["phase"] == "Completed", (status, second.logs())
        assert tree(target) == expected
    finally:
        second.close()


def test_command_line_starts_the_agent_as_veleros_daemonset_does(cluster):
    require_tool("kube-apiserver")
    uid, path = cluster.pod("db-0")
    (path / "a").write_text("x")
    cluster.backup("out", "db-0", uid)
    main = "import sys; from longshore.cli.main import main; sys.exit(main())"
    words = ["-c", main, "node-agent", "server", f"--kubeconfig={cluster.api_server.kubeconfig}"]
    words += [f"--namespace={cluster.namespace}", f"--node-name={NODE}", f"--host-pods-root={cluster.pods_root}"]
    agent = cluster.agent(*words, "--metrics-address=127.0.0.1:0", f"--cache-dir={cluster.cache}")
    assert cluster.wait_phase("podvolumebackups", "out")["phase"] == "Completed", cluster.logs()
    os.kill(agent.pid, signal.SIGTERM)
    wait_for(lambda: not agent.alive, seconds=30, what="the agent ends")
    secret = cluster.core.read_namespaced_secret("longshore-repo-credentials", cluster.namespace)
    digits = base64.b64decode(secret.data["repository-key"]).decode().strip().removeprefix("longshore-key-1:")
    access = base64.b64decode(cluster.core.read_namespaced_secret("cloud", cluster.namespace).data["keys"]).decode()
    everything = cluster.logs() + json.dumps(cluster.get("podvolumebackups", "out"))
    assert len(digits) == 64 and digits not in everything
    assert access.splitlines()[2].partition(" = ")[2] not in everything
