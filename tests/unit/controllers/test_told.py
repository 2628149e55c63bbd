"""What goes wrong is told in three places in the same words: the object's status, one Event, one record of the log. And the agent goes on.

One row for each thing that operators and tenants get wrong; what is wrong with a real store stands in tests/cluster/test_bad_input.py, what takes a kubelet in
tests/node.
"""

import pytest
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import NAMESPACE, NODE, PVB, PVR, records
from tests.unit.controllers.test_older_definitions import older  # noqa: F401 - a fixture

from longshore.errors import NotFoundError, StoreDeniedError
from longshore.kube.resource import EVENTS, LEASES, PERSISTENT_VOLUMES, PODS, SECRETS

SAID_ONCE = {"ts", "level", "logger", "msg", "kind", "key", "phase", "reason"}


def check_told(rig, out, name, *, phase="Failed", says="", resource=PVB):
    """Status, Event and log say the same; gives the status."""
    status = rig.wait_phase(resource, name)
    assert status["phase"] == phase and says in status["message"], status
    assert status["completionTimestamp"] and status["node"] == NODE
    wait_for(lambda: rig.events(name, phase), what="the Event")
    (event,) = rig.events(name, phase)
    assert event["count"] == 1 and event["type"] == ("Warning" if phase == "Failed" else "Normal")
    assert event["involvedObject"]["kind"] == resource.kind
    if says:
        assert event["message"] == status["message"][:1024]
    (record,) = records(out, "Ended object", key=f"{NAMESPACE}/{name}")
    assert set(record) == SAID_ONCE, record
    assert record["level"] == ("warning" if phase == "Failed" else "info")
    assert (record["kind"], record["phase"], record["reason"]) == (resource.kind, phase, status["message"])
    return status


def check_goes_on(rig, out, pod):
    assert check_told(rig, out, rig.backup(pod), phase="Completed")["snapshotID"]


def no_secret(rig, pod):
    where = {
        "provider": "aws",
        "objectStorage": {"bucket": "backups"},
        "config": {"region": "r-1"},
        "credential": {"name": "gone", "key": "cloud"},
    }
    rig.location("bucket", **where)
    return rig.backup(pod, backupStorageLocation="bucket")


def refused(error):
    def begin(rig, pod):
        rig.world.refused = error
        return rig.backup(pod)

    return begin


def asked(**spec):
    return lambda rig, pod: rig.backup(pod, **spec)


def other_uid(rig, pod):
    return rig.backup({"metadata": {**pod["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}})


def made(name, **volume):
    def begin(rig, _pod):
        other, _path = rig.pod(name, volumes=[{"name": "data", **volume}])
        return rig.backup(other)

    return begin


def unmounted(rig, _pod):
    """A claim of a CSI driver that has mounted nothing yet."""
    other, path = rig.pod("unmounted", claim="disk")
    path.rmdir()
    return rig.backup(other)


def block(rig, _pod):
    other, _path = rig.pod("raw", claim="raw")
    rig.server.put(PERSISTENT_VOLUMES, {"metadata": {"name": "pv-raw"}, "spec": {"volumeMode": "Block"}})
    return rig.backup(other)


WRONG = {
    "location unknown": (asked(backupStorageLocation="nonesuch"), "location='nonesuch'"),
    "location not named": (asked(backupStorageLocation=""), "field=spec.backupStorageLocation"),
    "secret gone": (no_secret, "secret=gone/cloud"),
    "bucket gone": (refused(NotFoundError("the bucket is not there: bucket=b", "create it")), "bucket=b; create it"),
    "credentials wrong": (refused(StoreDeniedError("the store refuses", "mend them")), "the store refuses; mend them"),
    "volume unknown": (asked(volume="nonesuch"), "volume='nonesuch'"),
    "pod replaced": (other_uid, "another one has its name"),
    "hostPath": (made("host", hostPath={"path": "/etc"}), "hostPath"),
    "claim gone": (made("claimless", persistentVolumeClaim={"claimName": "gone"}), "pvc=shop/gone"),
    "not mounted": (unmounted, "the volume is not on this node"),
    "block volume": (block, "a block volume"),
}


@pytest.mark.parametrize(("begin", "says"), WRONG.values(), ids=WRONG.keys())
def test_wrong_backup_is_told(rig, out, begin, says):
    pod, _path = rig.pod()
    rig.agent()
    check_told(rig, out, begin(rig, pod), says=says)
    rig.world.refused = None
    check_goes_on(rig, out, pod)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"backupStorageLocation": "nonesuch"}, "location='nonesuch'"),
        ({"snapshotID": "ls0-" + "0" * 32}, "no such snapshot"),
        ({"volume": "nonesuch"}, "volume='nonesuch'"),
    ],
    ids=["location", "snapshot", "volume"],
)
def test_wrong_restore_is_told(rig, out, spec, says):
    pod, _path = rig.pod()
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, _target = rig.waiting_pod()
    check_told(rig, out, rig.restore(back, snapshot, **spec), says=says, resource=PVR)
    check_told(rig, out, rig.restore(back, snapshot), phase="Completed", resource=PVR)


def test_kubelets_folder_elsewhere_is_told(rig, out):
    """The agent was given a folder that is there and is not the kubelet's. It goes on, and takes the next backup on."""
    pod, _path = rig.pod()
    (rig.folder / "elsewhere").mkdir()
    rig.agent(host_pods_root=rig.folder / "elsewhere")
    check_told(rig, out, rig.backup(pod), says="--host-pods-root is the kubelet's folder of pods")
    check_told(rig, out, rig.backup(pod, volume="nonesuch"), says="volume='nonesuch'")


def test_key_that_is_gone_is_told(rig, out):
    pod, _path = rig.pod()
    first = rig.agent()
    check_goes_on(rig, out, pod)
    kept = rig.server.get(SECRETS, "longshore-repo-credentials", namespace=NAMESPACE)
    first.terminate()
    rig.client.delete(SECRETS, "longshore-repo-credentials", namespace=NAMESPACE)
    rig.agent()
    check_told(rig, out, rig.backup(pod), says="longshore repo key import")
    assert len(rig.world.repositories) == 1
    rig.server.put(SECRETS, {"metadata": {"name": kept["metadata"]["name"]}, "data": kept["data"]}, namespace=NAMESPACE)
    check_goes_on(rig, out, pod)


def away(rig):
    rig.world.down = True
    return {}


def back(rig):
    rig.world.down = False


def no_root(rig):
    return {"host_pods_root": rig.folder / "elsewhere"}


def root(rig):
    (rig.folder / "elsewhere").symlink_to(rig.pods_root)


@pytest.mark.parametrize(
    ("spoil", "mend", "says"),
    [(away, back, "the store does not answer"), (no_root, root, "give its path with --host-pods-root")],
    ids=["store away", "no folder of pods"],
)
def test_what_is_waited_for_is_told_once_and_needs_nobody_to_begin_anew(rig, out, spoil, mend, says):
    pod, _path = rig.pod()
    rig.agent(**spoil(rig))
    name = rig.backup(pod)
    key = f"{NAMESPACE}/{name}"
    tried = wait_for(lambda: (found := records(out, "Work is tried again", key=key))[1:] and found)
    assert {frozenset(one) for one in tried} == {
        frozenset({"ts", "level", "logger", "msg", "kind", "key", "error", "again_in_seconds"})
    }
    status = rig.status(PVB, name)
    assert status["phase"] == "InProgress" and "waiting, nothing is lost yet" in status["message"]
    assert says in status["message"]
    (event,) = wait_for(lambda: rig.events(name, "Waiting"))
    assert event["type"] == "Warning" and event["count"] == 1 and says in event["message"]
    mend(rig)
    check_told(rig, out, name, phase="Completed")
    assert [one["count"] for one in rig.events(name, "Waiting")] == [1]
    check_goes_on(rig, out, pod)


def test_second_agent_on_the_node_is_told(rig, out):
    """Somebody starts one more by hand: it does nothing and says so, once it is plain that the other lives."""
    pod, _path = rig.pod()
    first = rig.agent().wait_ready()
    second = rig.agent()
    (event,) = wait_for(lambda: [one for one in rig.server.objects(EVENTS) if one["reason"] == "SecondAgent"])
    lease = f"longshore-node-agent-{NODE}"
    assert event["involvedObject"]["kind"] == "Lease" and event["involvedObject"]["name"] == lease
    assert event["type"] == "Warning" and f"holder={first.agent.instance}" in event["message"]
    assert second.agent.instance in event["message"]
    (waits,) = records(out, "Waiting for lease", holder=first.agent.instance, identity=second.agent.instance)
    (told,) = records(out, "Another agent works on this node", holder=first.agent.instance)
    assert told["level"] == "warning" and told["instance"] == second.agent.instance and told["next_step"]
    assert waits["ts"] < told["ts"]
    check_goes_on(rig, out, pod)
    first.terminate()
    wait_for(second.agent.lease.is_leader)
    assert rig.server.get(LEASES, lease, namespace=NAMESPACE)["spec"]["holderIdentity"] == second.agent.instance
    check_goes_on(rig, out, pod)


def test_definitions_that_drop_fields_are_told_once(older, out):  # noqa: F811 - the fixture
    pod, _path = older.pod()
    older.agent()
    names = [older.backup(pod) for _ in range(3)]
    assert [older.wait_phase(PVB, name)["phase"] for name in names] == ["Completed"] * 3
    found = wait_for(lambda: [one for name in names for one in older.events(name, "FieldsDropped")])
    assert len(found) == 1 and found[0]["type"] == "Normal" and "daemonset/crds" in found[0]["message"]
    (record,) = records(out, "Definitions of the cluster drop fields")
    assert record["kind"] == "PodVolumeBackup" and record["fields"] == "status.node, status.instance"
    # What is wrong is told under them too.
    bad = older.backup(pod, volume="nonesuch")
    assert "nonesuch" in older.wait_phase(PVB, bad)["message"]
    assert wait_for(lambda: older.events(bad, "Failed")) and records(out, "Ended object", key=f"{NAMESPACE}/{bad}")


def test_own_definitions_drop_nothing(rig, out):
    pod, _path = rig.pod()
    rig.agent()
    check_goes_on(rig, out, pod)
    assert not records(out, "Definitions of the cluster drop fields")
    assert not [one for one in rig.server.objects(EVENTS) if one["reason"] == "FieldsDropped"]


@pytest.mark.parametrize("how", ["claim that two pods mount", "subPath", "CSI path"])
def test_what_is_odd_and_right_is_told_as_done(rig, out, how):
    claim = None if how == "subPath" else "disk"
    container = {"name": "db", "image": "db"}
    if how == "subPath":
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data", "subPath": "inner/part"}]
    pods = [rig.pod("a", claim=claim, spec={"containers": [container]})]
    if how == "claim that two pods mount":
        pods.append(rig.pod("b", claim=claim))
    rig.agent()
    for pod, path in pods:
        (path / "inner" / "part").mkdir(parents=True)
        (path / "beside").write_bytes(b"not seen by the pod")
        status = check_told(rig, out, rig.backup(pod), phase="Completed")
        assert status["path"] == str(path) and status["progress"]["totalBytes"] == 19
        assert how != "CSI path" or status["path"].endswith("/kubernetes.io~csi/pv-disk/mount")
    assert len({one.source for one in rig.snapshots()}) == 1
    assert [one.parent for one in rig.snapshots()] == [None, *(one.id for one in rig.snapshots()[:-1])]


def deleted(rig, pod):
    rig.client.delete(PODS, pod["metadata"]["name"], namespace="shop", grace_period_seconds=0)


def replaced(rig, pod):
    deleted(rig, pod)
    rig.pod()


def evicted(rig, pod):
    found = rig.server.get(PODS, pod["metadata"]["name"], namespace="shop")
    rig.server.put(PODS, {**found, "status": {"phase": "Failed", "reason": "Evicted"}}, namespace="shop")


def terminating(state):
    def change(rig, pod):
        rig.client.patch(PODS, pod["metadata"]["name"], {"metadata": {"finalizers": ["x.io/y"]}}, namespace="shop")
        found = rig.server.get(PODS, pod["metadata"]["name"], namespace="shop")
        found["status"]["containerStatuses"] = [{"name": "db", "state": state}]
        rig.server.put(PODS, found, namespace="shop")
        rig.client.delete(PODS, pod["metadata"]["name"], namespace="shop")

    return change


STOPPED = terminating({"terminated": {"exitCode": 0}})
RUNNING = terminating({"running": {}})


@pytest.mark.parametrize(
    ("change", "claim", "phase"),
    [
        (deleted, None, "Failed"),
        (replaced, None, "Failed"),
        (evicted, None, "Failed"),
        (STOPPED, None, "Failed"),
        # The kubelet takes nothing away while a container runs.
        (RUNNING, None, "Completed"),
        # What is claimed outlives the pod, and is not unmounted under who reads it.
        (deleted, "orders", "Completed"),
    ],
    ids=["deleted", "replaced", "evicted", "terminated", "terminating", "claimed"],
)
def test_pod_that_ends_while_its_volume_is_read(rig, out, change, claim, phase):
    pod, path = rig.pod(claim=claim)
    (path / "a").write_bytes(b"x")
    rig.world.gate.clear()
    rig.agent()
    name = rig.backup(pod)
    wait_for(lambda: rig.world.calls and rig.world.calls[-1][0] == "backup")
    change(rig, pod)
    rig.world.gate.set()
    says = "the pod ended while its volume was read" if phase == "Failed" else ""
    status = check_told(rig, out, name, phase=phase, says=says)
    # What was captured is kept either way.
    assert status["snapshotID"] == rig.snapshots()[0].id
    other, _path = rig.pod("other-0")
    check_goes_on(rig, out, other)
