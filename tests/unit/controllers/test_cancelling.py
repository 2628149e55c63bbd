"""Cancellation and deletion in every phase and state of both kinds: it ends at once, and a volume that is not whole lets no pod go."""

import pytest
from tests.unit.controllers.fake_datapath import slow_to_stop, wait_for
from tests.unit.controllers.rig import NAMESPACE, PVB, PVR

STATES = ["container", "turn", "running", "store"]


def cancel(rig, resource, name):
    rig.client.patch(resource, name, {"spec": {"cancel": True}}, namespace=NAMESPACE)


def node_with_a_snapshot(rig, state):
    """An agent, a pod that was backed up once, and that snapshot; all is laid out for the next object to come into the state."""
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    agent = rig.agent(concurrency=1).wait_ready() if state == "turn" else rig.agent().wait_ready()
    snapshot = rig.done_backup(pod)["snapshotID"]
    if state in {"turn", "running"}:
        rig.world.gate.clear()
    if state == "turn":
        rig.backup(rig.pod("first")[0], name="first")
        wait_for(lambda: rig.world.running == 1)
    rig.world.down = state == "store"
    return agent, pod, snapshot


def wait_until_it_is(rig, state, agent, resource, name):
    match state:
        case "container":
            wait_for(lambda: any(one.verb == "get" and one.name == name for one in rig.server.seen))
        case "turn":
            wait_for(lambda: agent.agent.tasks.waiting() == 1)
            assert rig.status(resource, name) == {}
        case "running":
            wait_for(lambda: rig.world.running == 1)
        case "store":
            wait_for(lambda: "waiting" in rig.status(resource, name).get("message", ""))


def restore_that_is(rig, state):
    """A restore that waits for its container or its turn, runs, or waits for a store that is away; its name, its target and the snapshot."""
    agent, _pod, snapshot = node_with_a_snapshot(rig, state)
    back, target = rig.waiting_pod(running=state != "container")
    name = rig.restore(back, snapshot)
    wait_until_it_is(rig, state, agent, PVR, name)
    return name, target, snapshot, agent


def wait_until_idle(rig, agent, state):
    """Until no work goes on but that of the first, while the object waited for its turn."""
    others = int(state == "turn")
    wait_for(lambda: agent.agent.tasks.running() == rig.world.running == others, what="the job has ended")


def let_everything_go_on(rig, agent):
    rig.world.down = False
    rig.world.gate.set()
    wait_for(lambda: agent.agent.tasks.running() == agent.agent.tasks.waiting() == 0, what="nothing is left to do")


def nothing_came_of_it(rig, target, snapshot):
    assert not (target / ".velero").exists()
    assert [one.id for one in rig.snapshots()] == [snapshot]


@pytest.mark.parametrize("state", STATES)
def test_restore_is_cancelled(rig, state):
    name, target, snapshot, agent = restore_that_is(rig, state)
    cancel(rig, PVR, name)
    status = rig.wait_phase(PVR, name)
    assert status["phase"] == "Canceled" and status["completionTimestamp"]
    wait_until_idle(rig, agent, state)
    # What it waited for comes too late.
    let_everything_go_on(rig, agent)
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
    wait_until_idle(rig, agent, state)
    nothing_came_of_it(rig, target, snapshot)
    # And the agent goes on.
    let_everything_go_on(rig, agent)
    back, target = rig.waiting_pod("again-0")
    assert rig.wait_phase(PVR, rig.restore(back, snapshot))["phase"] == "Completed"
    assert (target / ".velero").is_dir()


@pytest.mark.parametrize("state", ["turn", "running", "store"])
@pytest.mark.parametrize("finalizers", [[], ["velero.io/pod-volume-finalizer"]], ids=["plain", "finalizer"])
def test_backup_is_deleted(rig, state, finalizers):
    agent, pod, snapshot = node_with_a_snapshot(rig, state)
    name = rig.backup(pod, name="deleted")
    uid = rig.get(PVB, name)["metadata"]["uid"]
    wait_until_it_is(rig, state, agent, PVB, name)
    if finalizers:
        rig.client.patch(PVB, name, {"metadata": {"finalizers": finalizers}}, namespace=NAMESPACE)
    rig.client.delete(PVB, name, namespace=NAMESPACE)
    wait_for(lambda: rig.get(PVB, name) is None, what="the object is gone")
    wait_until_idle(rig, agent, state)
    following = rig.backup(pod, name="following")
    if state == "store":
        # By the time that this one is tried again the deleted one would have been.
        wait_until_it_is(rig, state, agent, PVB, following)
    let_everything_go_on(rig, agent)
    # And the agent goes on.
    assert rig.wait_phase(PVB, following)["phase"] == "Completed"
    made = {one.tags["pvb"] for one in rig.snapshots() if one.id != snapshot}
    assert made == ({"first", "following"} if state == "turn" else {"following"})
    begun = [request.tags["pvb-uid"] for kind, request in rig.world.calls if kind == "backup"]
    assert begun.count(uid) == int(state != "turn"), "it was begun again"


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
    asked, let_go = slow_to_stop(monkeypatch)
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
