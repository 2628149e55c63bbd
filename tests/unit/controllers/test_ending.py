"""Cancellation in every phase, deletion, outages, refusals: each ends as it should, with a message that says what to do."""

import base64

import pytest
from tests.unit.controllers.fake_datapath import Lost, wait_for
from tests.unit.controllers.rig import BSL, NAMESPACE, PVB, PVR, RESTORE_UID

from longshore.controllers.ports import allowances
from longshore.errors import CorruptError, NewerFormatError, NoSpaceError, StoreDeniedError
from longshore.kube.fake import Answer
from longshore.kube.resource import EVENTS, PERSISTENT_VOLUMES, PODS, SECRETS


def cancel(rig, resource, name):
    rig.client.patch(resource, name, {"spec": {"cancel": True}}, namespace=NAMESPACE)


def test_cancelled_before_it_began(rig):
    pod, _path = rig.pod()
    name = rig.backup(pod, cancel=True)
    rig.agent()
    status = rig.wait_phase(PVB, name)
    assert status["phase"] == "Canceled" and status["completionTimestamp"] and rig.world.calls == []


def test_cancelled_while_it_waits_for_its_turn(rig):
    rig.world.gate.clear()
    pods = [rig.pod(f"db-{number}")[0] for number in range(2)]
    rig.agent(concurrency=1)
    first = rig.backup(pods[0])
    rig.wait_phase(PVB, first, "InProgress")
    second = rig.backup(pods[1])
    wait_for(lambda: rig.world.running == 1)
    assert rig.status(PVB, second) == {}
    cancel(rig, PVB, second)
    assert rig.wait_phase(PVB, second)["phase"] == "Canceled"
    rig.world.gate.set()
    assert rig.wait_phase(PVB, first)["phase"] == "Completed"


def test_cancelled_while_it_runs(rig):
    rig.world.gate.clear()
    pod, _path = rig.pod()
    rig.agent()
    name = rig.backup(pod)
    wait_for(lambda: rig.world.running == 1)
    cancel(rig, PVB, name)
    status = rig.wait_phase(PVB, name)
    assert status["phase"] == "Canceled" and status["completionTimestamp"]
    assert rig.world.running == 0 and rig.snapshots() == []


def test_cancelled_while_the_store_is_away(rig):
    rig.world.down = True
    pod, _path = rig.pod()
    rig.agent()
    name = rig.backup(pod)
    wait_for(lambda: "waiting" in rig.status(PVB, name).get("message", ""))
    cancel(rig, PVB, name)
    assert rig.wait_phase(PVB, name)["phase"] == "Canceled"


def test_deletion_ends_the_job_and_nothing_else(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    kept = rig.done_backup(pod)
    rig.world.gate.clear()
    name = rig.backup(pod)
    wait_for(lambda: rig.world.running == 1)
    rig.client.delete(PVB, name, namespace=NAMESPACE)
    wait_for(lambda: rig.world.running == 0)
    assert [one.id for one in rig.snapshots()] == [kept["snapshotID"]]
    # A finished one goes as well, and its snapshot stays.
    for one in rig.server.objects(PVB):
        rig.client.delete(PVB, one["metadata"]["name"], namespace=NAMESPACE)
    assert [one.id for one in rig.snapshots()] == [kept["snapshotID"]]


def test_deletion_with_a_foreign_finalizer_does_not_hang(rig):
    rig.world.gate.clear()
    pod, _path = rig.pod()
    rig.agent()
    name = rig.backup(pod)
    wait_for(lambda: rig.world.running == 1)
    change = {"metadata": {"finalizers": ["velero.io/pod-volume-finalizer"]}}
    rig.client.patch(PVB, name, change, namespace=NAMESPACE)
    rig.client.delete(PVB, name, namespace=NAMESPACE)
    wait_for(lambda: rig.get(PVB, name) is None)
    assert rig.world.running == 0


def test_outage_fails_nobody(rig):
    rig.world.down = True
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    name = rig.backup(pod)
    status = wait_for(lambda: one if "message" in (one := rig.status(PVB, name)) and one["message"] else None)
    assert status["phase"] == "InProgress" and "does not answer" in status["message"]
    rig.world.down = False
    status = rig.wait_phase(PVB, name)
    assert status["phase"] == "Completed" and status["message"] == ""


def test_outage_without_end_fails(rig):
    rig.world.down = True
    pod, _path = rig.pod()
    rig.agent(outage_seconds_max=1.0)
    status = rig.done_backup(pod)
    assert status["phase"] == "Failed" and "given up" in status["message"] and "check the network" in status["message"]


def test_several_at_once_but_no_more_than_allowed(rig):
    rig.world.gate.clear()
    pods = [rig.pod(f"db-{number}")[0] for number in range(6)]
    rig.agent(concurrency=3, memory_limit_bytes=300)
    names = [rig.backup(pod) for pod in pods]
    wait_for(lambda: rig.world.running == 3)
    rig.world.gate.set()
    assert [rig.wait_phase(PVB, name)["phase"] for name in names] == ["Completed"] * 6
    assert rig.world.peak == 3
    assert {request.memory_limit_bytes for kind, request in rig.world.calls if kind == "backup"} == {100}


def test_items_that_could_not_be_read_are_named(rig):
    rig.world.lost = tuple(Lost(b"bad\n\xff%d" % number, "permission denied") for number in range(150))
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    status = rig.done_backup(pod)
    assert status["phase"] == "Failed" and status["snapshotID"] == rig.snapshots()[0].id
    message = status["message"]
    assert "items=[permission denied: bad\\x0a\\xff0, bad\\x0a\\xff1, " in message and "and 140 more]" in message
    assert message.count("permission denied") == 1 and "the agent's log names them all" in message


def test_restore_that_is_not_whole_lets_no_pod_go(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    rig.world.lost = (Lost(b"a", "no such user"),)
    back, target = rig.waiting_pod()
    status = rig.wait_phase(PVR, rig.restore(back, snapshot))
    assert status["phase"] == "Failed" and "no such user" in status["message"]
    assert not (target / ".velero").exists()


@pytest.mark.parametrize(
    ("default", "annotation", "setting", "allowed"),
    [
        ("none", None, None, set()),
        ("none", "setuid, capabilities", None, {"setuid", "capabilities"}),
        ("none", None, "devices", {"devices"}),
        ("setuid", None, None, {"setuid"}),
        ("setuid,devices", "none", "devices", set()),
        ("setuid", "devices", "capabilities", {"devices"}),
        ("none", "all", None, None),
        ("none", None, "setuid,", None),
    ],
)
def test_rights_come_back_only_where_that_is_allowed(rig, default, annotation, setting, allowed):
    pod, _path = rig.pod()
    rig.agent(restore_allow=allowances(default, field="x"))
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, _target = rig.waiting_pod()
    metadata = {} if annotation is None else {"annotations": {"longshore.io/restore-allow": annotation}}
    spec = {} if setting is None else {"uploaderSettings": {"RestoreAllow": setting}}
    status = rig.wait_phase(PVR, rig.restore(back, snapshot, metadata=metadata, **spec))
    asked = [set(request.allow) for kind, request in rig.world.calls if kind == "restore"]
    if allowed is None:
        assert status["phase"] == "Failed" and "restore may be allowed" in status["message"] and asked == []
    else:
        assert status["phase"] == "Completed" and asked == [allowed]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoSpaceError("the disk is full", "make room"), "make room"),
        (NewerFormatError("the format is newer", "upgrade"), "upgrade"),
        (CorruptError("a pack is damaged", "run a check"), "run a check"),
        (StoreDeniedError("the store refuses", "mend the credentials"), "mend the credentials"),
        (RuntimeError("boom"), "report it"),
    ],
)
def test_what_cannot_get_better_fails_at_once(rig, error, said):
    rig.world.refused = error
    pod, _path = rig.pod()
    rig.agent()
    status = rig.done_backup(pod)
    assert status["phase"] == "Failed" and said in status["message"] and status["completionTimestamp"]
    assert "shop/db-0" in status["message"]


def test_agent_goes_on_with_the_next_object(rig):
    pod, _path = rig.pod()
    rig.agent(concurrency=1)
    assert rig.done_backup(pod, volume="nothing")["phase"] == "Failed"
    assert rig.done_backup(pod)["phase"] == "Completed"


@pytest.mark.parametrize(
    ("volumes", "phase", "said"),
    [
        ([{"name": "data", "hostPath": {"path": "/etc"}}], "Failed", "hostPath"),
        ([{"name": "data", "secret": {"secretName": "s"}}], "Completed", "comes back with its Secret"),
        ([{"name": "data", "configMap": {"name": "s"}}], "Completed", "comes back with its ConfigMap"),
        ([{"name": "data", "projected": {"sources": []}}], "Completed", "projected"),
        ([{"name": "data", "downwardAPI": {"items": []}}], "Completed", "downwardAPI"),
        ([{"name": "data", "persistentVolumeClaim": {"claimName": "gone"}}], "Failed", "PVC is not there"),
        ([{"name": "other", "emptyDir": {}}], "Failed", "no such volume"),
    ],
)
def test_volumes_that_are_not_backed_up(rig, volumes, phase, said):
    pod, _path = rig.pod(volumes=volumes)
    rig.agent()
    status = rig.done_backup(pod)
    assert status["phase"] == phase and said in status["message"] and "snapshotID" not in status


def test_block_volume_is_refused(rig):
    pod, _path = rig.pod(claim="raw")
    rig.server.put(
        PERSISTENT_VOLUMES, {"metadata": {"name": "pv-raw"}, "spec": {"volumeMode": "Block", "csi": {"driver": "x"}}}
    )
    rig.agent()
    status = rig.done_backup(pod)
    assert status["phase"] == "Failed" and "block volume" in status["message"]


def test_read_only_location(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    found = rig.server.get(BSL, "default", namespace=NAMESPACE)
    found["spec"]["accessMode"] = "ReadOnly"
    rig.server.put(BSL, found, namespace=NAMESPACE)
    status = rig.done_backup(pod)
    assert status["phase"] == "Failed" and "read-only" in status["message"] and len(rig.snapshots()) == 1
    back, target = rig.waiting_pod()
    assert rig.wait_phase(PVR, rig.restore(back, snapshot))["phase"] == "Completed"
    assert (target / "a").read_bytes() == b"x"


def test_location_that_is_not_there(rig):
    pod, _path = rig.pod()
    rig.agent()
    status = rig.done_backup(pod, backupStorageLocation="nowhere")
    assert (
        status["phase"] == "Failed" and "nowhere" in status["message"] and "BackupStorageLocation" in status["message"]
    )


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        ("abcdef12", "made by restic"),
        ("ab" * 32, "made by restic"),
        ("ab" * 16, "made by kopia"),
        ("", "not the id"),
        ("ls0-xyz", "not the id"),
        ("../../etc", "not the id"),
        ("ls0-" + "0" * 32, "no such snapshot"),
    ],
)
def test_snapshots_that_are_not_ours(rig, snapshot, said):
    pod, _path = rig.pod()
    rig.agent()
    rig.done_backup(pod)
    back, _target = rig.waiting_pod()
    status = rig.wait_phase(PVR, rig.restore(back, snapshot))
    assert status["phase"] == "Failed" and said in status["message"]


def test_restore_waits_for_the_container(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod(running=False, container="restic-wait")
    name = rig.restore(back, snapshot)
    wait_for(lambda: any(one.verb == "get" and one.name == name for one in rig.server.seen))
    assert rig.status(PVR, name) == {} and not (target / "a").exists()
    back["status"]["initContainerStatuses"][0]["state"] = {"running": {}}
    rig.server.put(PODS, back, namespace="shop")
    assert rig.wait_phase(PVR, name)["phase"] == "Completed"
    assert (target / ".velero" / RESTORE_UID).is_file()


def test_done_file_from_before_is_gone_before_the_restore_begins(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod()
    (target / ".velero").mkdir()
    (target / ".velero" / RESTORE_UID).touch()
    rig.world.gate.clear()
    name = rig.restore(back, snapshot)
    wait_for(lambda: any(kind == "restore" for kind, _request in rig.world.calls))
    assert not (target / ".velero").exists() and rig.status(PVR, name)["phase"] == "InProgress"
    rig.world.gate.set()
    assert rig.wait_phase(PVR, name)["phase"] == "Completed"


def test_status_that_cannot_be_written_does_not_touch_the_volume_again(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod()
    rig.world.gate.clear()
    name = rig.restore(back, snapshot)
    rig.wait_phase(PVR, name, "InProgress")
    rig.server.faults.inject(Answer(500), resource="podvolumerestores", verb="patch", times=None)
    rig.world.gate.set()
    wait_for((target / ".velero" / RESTORE_UID).is_file)
    # The pod goes on, and its container removes the folder, as it does.
    (target / ".velero" / RESTORE_UID).unlink()
    (target / ".velero").rmdir()
    before = len(rig.server.seen)
    wait_for(lambda: len([one for one in list(rig.server.seen)[before:] if one.verb == "patch"]) > 3)
    rig.server.faults.clear()
    assert rig.wait_phase(PVR, name)["phase"] == "Completed"
    assert not (target / ".velero").exists()


def test_pod_that_does_not_wait_is_not_restored_into(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    status = rig.wait_phase(PVR, rig.restore(pod, snapshot))
    assert status["phase"] == "Failed" and "restore-wait" in status["message"]
    back, _target = rig.waiting_pod()
    rig.let_waiter_end(back)
    status = rig.wait_phase(PVR, rig.restore(back, snapshot))
    assert status["phase"] == "Failed" and "gone on already" in status["message"]


def test_parent_is_found_by_the_claim_whatever_the_pod_is_called(rig):
    pod, path = rig.pod("db-abc", claim="orders")
    (path / "a").write_bytes(b"x")
    rig.agent()
    first = rig.done_backup(pod)["snapshotID"]
    other, path = rig.pod("db-xyz", claim="orders")
    (path / "a").write_bytes(b"y")
    rig.done_backup(other)
    assert [one.parent for one in rig.snapshots()] == [None, first]


def test_no_secret_is_shown_anywhere(rig):
    pod, _path = rig.pod()
    rig.agent()
    rig.done_backup(pod)
    secret = rig.server.get(SECRETS, "longshore-repo-credentials", namespace=NAMESPACE)
    digits = base64.b64decode(secret["data"]["repository-key"]).decode().strip().removeprefix("longshore-key-1:")
    assert len(digits) == 64
    shown = repr([rig.server.objects(PVB), rig.server.objects(EVENTS)])
    assert digits not in shown
