"""A volume goes out and comes back: phases, fields, bytes, the done-file."""

import os

from tests.unit.controllers.rig import PVB, PVR, RESTORE_UID


def fill(path):
    (path / "a").write_bytes(b"first")
    (path / "sub").mkdir()
    (path / "sub" / "b").write_bytes(b"second" * 1000)
    os.symlink("a", path / "link")
    (path / ".velero").mkdir()
    (path / ".velero" / "stale").write_text("")


def test_backup_goes_new_in_progress_completed(rig):
    phases = []
    pod, path = rig.pod(claim="orders")
    fill(path)
    rig.world.gate.clear()
    name = rig.backup(pod)
    agent = rig.agent().wait_ready()
    status = rig.wait_phase(PVB, name, "InProgress")
    phases.append(status["phase"])
    assert status["startTimestamp"] and status["instance"] == agent.agent.instance and status["node"] == "node-1"
    rig.world.gate.set()
    status = rig.wait_phase(PVB, name)
    assert status["phase"] == "Completed", status
    assert status["snapshotID"] == rig.snapshots()[0].id and status["path"] == str(path)
    assert status["completionTimestamp"] and status["progress"]["bytesDone"] == status["progress"]["totalBytes"] == 6005
    snapshot = rig.snapshots()[0]
    uid = rig.server.get(PVB, name, namespace="velero")["metadata"]["uid"]
    assert snapshot.tags["pvb-uid"] == uid and snapshot.tags["backup"] == "b"
    assert not any(entry.startswith(b".velero") for entry in snapshot.entries)
    assert snapshot.source.startswith("pvc/shop/orders/")


def test_restore_fills_the_volume_and_lets_the_pod_go(rig):
    pod, path = rig.pod(claim="orders")
    fill(path)
    rig.agent().wait_ready()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod()
    (target / ".velero").mkdir()
    (target / ".velero" / RESTORE_UID).write_text("left from before")
    status = rig.wait_phase(PVR, rig.restore(back, snapshot))
    assert status["phase"] == "Completed", status
    assert status["startTimestamp"] and status["completionTimestamp"] and status["node"] == "node-1"
    assert status["progress"]["bytesDone"] == 6005
    assert (target / "sub" / "b").read_bytes() == b"second" * 1000 and os.readlink(target / "link") == "a"
    assert sorted(os.listdir(target / ".velero")) == [RESTORE_UID]
    assert (target / ".velero" / RESTORE_UID).read_bytes() == b""
