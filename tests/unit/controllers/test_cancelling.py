"""Cancellation and deletion in every phase and state of both kinds: it ends at once, and a volume that is not whole lets no pod go."""

import threading

import pytest
from tests.unit.controllers import fake_datapath
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import NAMESPACE, PVB, PVR

STATES = ["container", "running", "store"]


def cancel(rig, resource, name):
    rig.client.patch(resource, name, {"spec": {"cancel": True}}, namespace=NAMESPACE)


def restore_that_is(rig, state):
    """A restore that waits for its container, runs, or waits for a store that is away; its name, its target and the snapshot."""
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    agent = rig.agent().wait_ready()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod(running=state != "container")
    if state == "running":
        rig.world.gate.clear()
    rig.world.down = state == "store"
    name = rig.restore(back, snapshot)
    match state:
        case "container":
            wait_for(lambda: any(one.verb == "get" and one.name == name for one in rig.server.seen))
        case "running":
            wait_for(lambda: rig.world.running == 1)
        case "store":
            wait_for(lambda: "waiting" in rig.status(PVR, name).get("message", ""))
    return name, target, snapshot, agent


def nothing_came_of_it(rig, target, snapshot):
    assert not (target / ".velero").exists()
    assert [one.id for one in rig.snapshots()] == [snapshot]


@pytest.mark.parametrize("state", STATES)
def test_restore_is_cancelled(rig, state):
    name, target, snapshot, agent = restore_that_is(rig, state)
    cancel(rig, PVR, name)
    status = rig.wait_phase(PVR, name)
    assert status["phase"] == "Canceled" and status["completionTimestamp"]
    wait_for(lambda: agent.agent.tasks.running() == 0 and rig.world.running == 0)
    # What it waited for comes too late.
    rig.world.down = False
    rig.world.gate.set()
    pod, _path = rig.pod("after")
    assert rig.done_backup(pod)["phase"] == "Completed"
    assert rig.status(PVR, name) == status and not (target / ".velero").exists()
    assert snapshot in [one.id for one in rig.snapshots()]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("finalizers", [[], ["velero.io/pod-volume-finalizer"]], ids=["plain", "finalizer"])
def test_restore_is_deleted(rig, state, finalizers):
    name, target, snapshot, agent = restore_that_is(rig, state)
    if finalizers:
        rig.client.patch(PVR, name, {"metadata": {"finalizers": finalizers}}, namespace=NAMESPACE)
    rig.client.delete(PVR, name, namespace=NAMESPACE)
    wait_for(lambda: rig.get(PVR, name) is None, what="the object is gone")
    wait_for(lambda: agent.agent.tasks.running() == 0 and rig.world.running == 0, what="the job has ended")
    nothing_came_of_it(rig, target, snapshot)
    # And the agent goes on.
    rig.world.down = False
    rig.world.gate.set()
    back, target = rig.waiting_pod("again-0")
    assert rig.wait_phase(PVR, rig.restore(back, snapshot))["phase"] == "Completed"
    assert (target / ".velero").is_dir()


def test_restore_is_cancelled_while_no_agent_runs(rig):
    name, target, snapshot, agent = restore_that_is(rig, "running")
    agent.kill()
    cancel(rig, PVR, name)
    rig.world.gate.set()
    rig.agent()
    assert rig.wait_phase(PVR, name)["phase"] == "Canceled"
    nothing_came_of_it(rig, target, snapshot)
    assert len([kind for kind, _request in rig.world.calls if kind == "restore"]) == 1


@pytest.mark.parametrize("phase", ["New", "Accepted", "Prepared", "InProgress", "Canceling"])
@pytest.mark.parametrize("resource", [PVB, PVR], ids=["backup", "restore"])
def test_object_of_another_agent_is_cancelled(rig, resource, phase):
    """Left behind by an agent that is gone, with the request of a user who saw it hang."""
    if resource is PVB:
        pod, target = rig.pod()
        name = rig.backup(pod, cancel=True)
    else:
        back, target = rig.waiting_pod()
        name = rig.restore(back, "ls0-" + "0" * 32, cancel=True)
    obj = rig.get(resource, name)
    obj["metadata"]["finalizers"] = ["velero.io/pod-volume-finalizer"]
    obj["status"] = {"phase": phase}
    rig.server.put(resource, obj, namespace=NAMESPACE)
    rig.agent()
    status = rig.wait_phase(resource, name)
    assert status["phase"] == "Canceled" and status["completionTimestamp"] and status["node"] == "node-1"
    assert rig.world.calls == [] and not (target / ".velero").exists()
    wait_for(lambda: not rig.get(resource, name)["metadata"].get("finalizers"))


@pytest.mark.parametrize("resource", [PVB, PVR], ids=["backup", "restore"])
def test_job_that_takes_its_time_to_stop_is_canceling(rig, resource, monkeypatch):
    asked, let_go = threading.Event(), threading.Event()
    stop = fake_datapath.FakeJob.cancel

    def slowly(job):
        if not asked.is_set():
            threading.Thread(target=lambda: (let_go.wait(20), stop(job)), daemon=True).start()
        asked.set()

    monkeypatch.setattr(fake_datapath.FakeJob, "cancel", slowly)
    if resource is PVR:
        name, target, _snapshot, _agent = restore_that_is(rig, "running")
    else:
        pod, target = rig.pod()
        rig.world.gate.clear()
        rig.agent()
        name = rig.backup(pod)
        wait_for(lambda: rig.world.running == 1)
    cancel(rig, resource, name)
    status = rig.wait_phase(resource, name, "Canceling")
    assert asked.wait(20) and rig.world.running == 1 and "completionTimestamp" not in status
    let_go.set()
    assert rig.wait_phase(resource, name)["phase"] == "Canceled"
    assert rig.world.running == 0 and not (target / ".velero").exists()
