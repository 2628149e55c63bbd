"""What becomes of an object when its agent dies, is stopped, loses its lease or its answers: finished, begun again or failed, and nothing twice."""

import threading

import pytest
from tests.unit.controllers import fake_datapath
from tests.unit.controllers.fake_datapath import slow_to_stop, wait_for
from tests.unit.controllers.rig import NAMESPACE, NODE, PVB, PVR, RESTORE_UID

from longshore.controllers import pod_volume
from longshore.controllers.claims import ANNOTATION_ATTEMPTS, ATTEMPTS_MAX
from longshore.controllers.pod_volume import PodVolumeController
from longshore.controllers.tasks import Slot
from longshore.errors import ConflictError
from longshore.kube.fake import Answer, DropConnection, Slow
from longshore.kube.leases import LeaseElector
from longshore.kube.resource import LEASES


def jobs(rig, kind):
    return [request for name, request in rig.world.calls if name == kind]


def test_killed_while_it_reads_is_begun_again(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"read by the first")
    rig.world.gate.clear()
    name = rig.backup(pod)
    first = rig.agent()
    before = rig.wait_phase(PVB, name, "InProgress")
    wait_for(lambda: jobs(rig, "backup"))
    first.kill()
    (path / "b").write_bytes(b"new")
    rig.world.gate.set()
    second = rig.agent()
    status = rig.wait_phase(PVB, name)
    assert status["incrementalBytes"] == 3 and status["progress"]["totalBytes"] == 20
    assert status["message"] == "went on from an interrupted attempt: files_resumed=1, bytes_resumed=17"
    assert status["phase"] == "Completed" and status["instance"] == second.agent.instance != before["instance"]
    assert status["startTimestamp"] == before["startTimestamp"]
    assert len(rig.snapshots()) == 1
    assert rig.get(PVB, name)["metadata"]["annotations"][ANNOTATION_ATTEMPTS] == "2"


def test_killed_after_the_commit_is_finished_with_that_snapshot(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.world.gate.clear()
    name = rig.backup(pod)
    first = rig.agent()
    rig.wait_phase(PVB, name, "InProgress")
    rig.server.faults.inject(Answer(500), resource="podvolumebackups", verb="patch", times=None)
    rig.world.gate.set()
    committed = wait_for(rig.snapshots)[0].id
    first.kill()
    assert rig.status(PVB, name)["phase"] == "InProgress"
    rig.server.faults.clear()
    rig.agent()
    status = rig.wait_phase(PVB, name)
    assert status["phase"] == "Completed" and status["snapshotID"] == committed
    assert len(rig.snapshots()) == 1 and len(jobs(rig, "backup")) == 1


def test_stopped_in_order_leaves_the_object_and_gives_the_lease_back(rig):
    pod, _path = rig.pod()
    rig.world.gate.clear()
    name = rig.backup(pod)
    first = rig.agent()
    rig.wait_phase(PVB, name, "InProgress")
    wait_for(lambda: jobs(rig, "backup"))
    first.terminate()
    status = rig.status(PVB, name)
    assert status["phase"] == "InProgress" and "completionTimestamp" not in status
    assert rig.world.running == 0
    lease = rig.server.get(LEASES, "longshore-node-agent-node-1", namespace=NAMESPACE)
    assert not lease["spec"]["holderIdentity"]
    rig.world.gate.set()
    rig.agent()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed"
    assert len(rig.snapshots()) == 1


def test_agent_that_is_ending_takes_nothing_more(rig, monkeypatch):
    """Its job takes its time to stop, and places are free: what is offered meanwhile is the next agent's."""
    asked, let_go = slow_to_stop(monkeypatch)
    pod, _path = rig.pod()
    rig.world.gate.clear()
    names = [rig.backup(pod)]
    first = rig.agent(concurrency=3, grace_seconds=20.0)
    wait_for(lambda: jobs(rig, "backup"))
    first.stop.set()
    assert asked.wait(20)
    names.append(rig.backup(pod))

    def renewals():
        return len([one for one in list(rig.server.seen) if one.resource == "leases" and one.verb == "update"])

    before = renewals()
    wait_for(lambda: renewals() >= before + 5, what="the agent lives on, and holds its lease")
    let_go.set()
    first.terminate()
    assert rig.status(PVB, names[1]) == {} and len(jobs(rig, "backup")) == 1
    assert not [one for one in rig.server.seen if one.verb in {"get", "patch"} and one.name == names[1]]
    rig.world.gate.set()
    rig.agent()
    assert [rig.wait_phase(PVB, name)["phase"] for name in names] == ["Completed"] * 2


def backed_up(rig):
    pod, path = rig.pod(claim="orders")
    (path / "a").write_bytes(b"from the backup")
    agent = rig.agent().wait_ready()
    return rig.done_backup(pod)["snapshotID"], agent


def test_restore_killed_half_way_is_begun_again(rig):
    snapshot, first = backed_up(rig)
    back, target = rig.waiting_pod()
    rig.world.gate.clear()
    name = rig.restore(back, snapshot)
    wait_for(lambda: jobs(rig, "restore"))
    first.kill()
    assert not (target / ".velero").exists()
    rig.world.gate.set()
    rig.agent()
    assert rig.wait_phase(PVR, name)["phase"] == "Completed"
    assert (target / "a").read_bytes() == b"from the backup" and (target / ".velero" / RESTORE_UID).is_file()


@pytest.mark.parametrize("waiter_ended", [False, True])
def test_restore_that_was_complete_is_not_run_over_the_living_pod(rig, waiter_ended):
    snapshot, first = backed_up(rig)
    back, target = rig.waiting_pod()
    rig.world.gate.clear()
    name = rig.restore(back, snapshot)
    rig.wait_phase(PVR, name, "InProgress")
    rig.server.faults.inject(Answer(500), resource="podvolumerestores", verb="patch", times=None)
    rig.world.gate.set()
    wait_for((target / ".velero" / RESTORE_UID).is_file)
    first.kill()
    rig.server.faults.clear()
    if waiter_ended:
        (target / ".velero" / RESTORE_UID).unlink()
        (target / ".velero").rmdir()
        rig.let_waiter_end(back)
    (target / "a").write_bytes(b"written by the pod since")
    rig.agent()
    status = rig.wait_phase(PVR, name)
    assert status["phase"] == "Completed", status
    assert (target / "a").read_bytes() == b"written by the pod since"
    assert len(jobs(rig, "restore")) == 1


def looked_at_everything(running):
    """Whether an agent's controllers have seen all there is, and have nothing left that they could do now."""
    controllers = running.agent.manager.controllers
    return all(
        one.has_synced() and not len(one.queue) and not one.queue.longest_running_seconds() for one in controllers
    )


def test_two_agents_do_it_once(rig):
    rig.world.gate.clear()
    names = []
    for number in range(4):
        pod, path = rig.pod(f"db-{number}")
        (path / "a").write_bytes(b"x")
        names.append(rig.backup(pod))
    first = rig.agent()
    wait_for(lambda: len(jobs(rig, "backup")) == 2)
    second = rig.agent()
    wait_for(lambda: looked_at_everything(second))
    assert second.agent.tasks.running() == 0 and len(jobs(rig, "backup")) == 2
    rig.world.gate.set()
    assert [rig.wait_phase(PVB, name)["phase"] for name in names] == ["Completed"] * 4
    assert len(rig.snapshots()) == len(jobs(rig, "backup")) == 4
    assert {rig.status(PVB, name)["instance"] for name in names} == {first.agent.instance}


@pytest.mark.parametrize("taking", ["claim_patch", "takeover_patch"])
def test_of_two_agents_that_both_believe_to_lead_one_takes_it(rig, taking, monkeypatch):
    """The lease can be believed in for too long; the version that was read cannot: of two that write at once, one gets a conflict and does nothing."""
    rig.world.gate.clear()
    lost, both = set(), threading.Barrier(2)
    monkeypatch.setattr(LeaseElector, "is_leader", lambda self: id(self) not in lost)
    write, make = PodVolumeController.patch, getattr(pod_volume, taking)

    def patch(self, obj, change):
        try:
            return write(self, obj, change)
        except ConflictError:
            # Now it learns that the lease is another's.
            lost.add(id(self.context.lease))
            raise

    def made(*args, **how):
        both.wait(20)
        return make(*args, **how)

    monkeypatch.setattr(PodVolumeController, "patch", patch)
    monkeypatch.setattr(pod_volume, taking, made)
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    agents = [rig.agent(), rig.agent()]
    wait_for(lambda: all(one.agent.manager.ready().ok for one in agents))
    name = rig.backup(pod, node="later")
    obj = rig.get(PVB, name)
    obj["spec"]["node"] = NODE
    if taking == "takeover_patch":
        obj["status"] = {"phase": "InProgress", "node": NODE, "instance": "gone"}
    rig.server.put(PVB, obj, namespace=NAMESPACE)
    wait_for(lambda: jobs(rig, "backup"))
    wait_for(lambda: all(looked_at_everything(one) for one in agents))
    assert sum(one.agent.tasks.running() for one in agents) == 1 and len(lost) == 1
    rig.world.gate.set()
    status = rig.wait_phase(PVB, name)
    winner = next(one.agent for one in agents if id(one.agent.lease) not in lost)
    assert status["phase"] == "Completed" and status["instance"] == winner.instance
    assert len(rig.snapshots()) == len(jobs(rig, "backup")) == 1


def test_lost_lease_stops_jobs_and_writes_nothing(rig):
    pod, _path = rig.pod()
    rig.world.gate.clear()
    name = rig.backup(pod)
    agent = rig.agent()
    rig.wait_phase(PVB, name, "InProgress")
    wait_for(lambda: rig.world.running == 1)
    rig.server.faults.inject(Answer(500), resource="leases", times=None)
    wait_for(lambda: rig.world.running == 0, what="the job was stopped")
    assert not agent.agent.lease.is_leader() and not agent.died.is_set()
    assert rig.status(PVB, name)["phase"] == "InProgress"
    rig.server.faults.clear()
    rig.world.gate.set()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed"
    assert len(rig.snapshots()) == 1


def test_process_ends_when_a_job_outlives_the_lease(rig, monkeypatch):
    monkeypatch.setattr(fake_datapath.FakeJob, "cancel", lambda self: None)
    pod, _path = rig.pod()
    rig.world.gate.clear()
    name = rig.backup(pod)
    agent = rig.agent()
    rig.wait_phase(PVB, name, "InProgress")
    wait_for(lambda: rig.world.running == 1)
    rig.server.faults.inject(Answer(500), resource="leases", times=None)
    assert agent.died.wait(10)


def test_work_that_is_planned_while_the_lease_is_lost_never_begins(rig, monkeypatch):
    pod, _path = rig.pod()
    rig.world.gate.clear()
    agent = rig.agent().wait_ready()
    planned, start = threading.Event(), Slot.start
    monkeypatch.setattr(Slot, "start", lambda self, **how: (start(self, **how), planned.set())[0])
    rig.server.faults.inject(Slow(4.0), resource="pods", verb="get")
    name = rig.backup(pod)
    rig.wait_phase(PVB, name, "InProgress")
    rig.server.faults.inject(Answer(500), resource="leases", times=None)
    assert planned.wait(20) and not agent.agent.lease.is_leader()
    wait_for(lambda: agent.agent.tasks.running() == 0, what="the work was stopped")
    assert not agent.died.is_set() and rig.status(PVB, name)["phase"] == "InProgress"
    rig.server.faults.clear()
    rig.world.gate.set()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed" and len(rig.snapshots()) == 1


def test_process_lives_on_when_the_lease_is_had_again_before_the_old_job_stopped(rig, monkeypatch):
    """What begins under the new term must not be taken for an old job that does not stop."""
    cancel = fake_datapath.FakeJob.cancel
    monkeypatch.setattr(fake_datapath.FakeJob, "cancel", lambda self: threading.Timer(0.6, cancel, (self,)).start())
    pods = [rig.pod(name)[0] for name in ("db-0", "db-1")]
    rig.world.gate.clear()
    agent = rig.agent().wait_ready()
    rig.backup(pods[0])
    wait_for(lambda: rig.world.running == 1)
    rig.server.faults.inject(Answer(500), resource="leases", times=None)
    wait_for(lambda: not agent.agent.lease.is_leader())
    rig.server.faults.clear()
    wait_for(agent.agent.lease.is_leader)
    rig.backup(pods[1])
    wait_for(lambda: len(jobs(rig, "backup")) >= 2, what="the second one began")
    assert not agent.died.wait(3.0)
    rig.world.gate.set()
    wait_for(lambda: len(rig.snapshots()) == 2)


@pytest.mark.parametrize("skip", range(4))
def test_lost_answers_change_nothing(rig, skip):
    """The claim's, a progress report's or the end's answer never comes, though the write was done."""
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x" * 100)
    name = rig.backup(pod)
    rig.server.faults.inject(DropConnection(applied=True), resource="podvolumebackups", verb="patch", skip=skip)
    rig.agent()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed"
    assert len(rig.snapshots()) == 1 and len(jobs(rig, "backup")) == 1


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_api_that_fails_now_and_then_changes_nothing(rig, code):
    pods = [rig.pod(f"db-{number}") for number in range(3)]
    rig.server.faults.inject(
        Answer(code, retry_after_seconds=1 if code == 429 else None), resource="podvolumebackups", verb="patch", times=5
    )
    rig.server.faults.inject(Answer(500), resource="pods", times=3)
    rig.agent()
    names = [rig.backup(pod) for pod, _path in pods]
    assert [rig.wait_phase(PVB, name, seconds=40)["phase"] for name in names] == ["Completed"] * 3
    assert len(rig.snapshots()) == 3


def test_object_that_ends_the_agent_each_time_is_given_up(rig):
    pod, _path = rig.pod()
    name = rig.backup(pod)
    obj = rig.get(PVB, name)
    obj["metadata"]["annotations"] = {ANNOTATION_ATTEMPTS: str(ATTEMPTS_MAX)}
    obj["status"] = {"phase": "InProgress", "node": "node-1", "instance": "gone"}
    rig.server.put(PVB, obj, namespace=NAMESPACE)
    rig.agent()
    status = rig.wait_phase(PVB, name)
    assert status["phase"] == "Failed" and "memory limit" in status["message"] and status["completionTimestamp"]


@pytest.mark.parametrize("phase", ["", "New", "Accepted", "Prepared", "InProgress"])
def test_object_of_another_agent_is_carried_on(rig, phase):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    name = rig.backup(pod)
    obj = rig.get(PVB, name)
    obj["metadata"]["finalizers"] = ["velero.io/pod-volume-finalizer", "somebody.example.com/else"]
    obj["status"] = {"phase": phase}
    rig.server.put(PVB, obj, namespace=NAMESPACE)
    rig.agent()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed"
    wait_for(lambda: rig.get(PVB, name)["metadata"].get("finalizers") == ["somebody.example.com/else"])
