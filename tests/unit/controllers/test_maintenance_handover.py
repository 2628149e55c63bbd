"""One repository, several objects, servers of several versions: its runs are found, counted and recorded once, whichever of them is served."""

from tests.unit.controllers.maintenance_rig import HOUR, NAMESPACE, REPOSITORY, RESTIC, good

from longshore.controllers.maintenance.ledger import Ledger
from longshore.kube.resource import JOBS


def test_a_keeper_that_appears_takes_over_the_run_of_the_one_before(upkeep):
    upkeep.repository("old-restic", resource=RESTIC, resticIdentifier="")
    upkeep.look("old-restic", kind="ResticRepository")
    upkeep.end(upkeep.jobs()[0], text=good())
    upkeep.look("old-restic", kind="ResticRepository")
    upkeep.clock.advance(25 * HOUR)
    upkeep.look("old-restic", kind="ResticRepository")
    job = upkeep.jobs()[1]
    upkeep.pod(job, phase="Running")
    upkeep.repository()
    for _ in range(3):
        assert upkeep.look().after_seconds == 10.0
        upkeep.look("old-restic", kind="ResticRepository")
    assert upkeep.jobs()[1:] == [job]
    upkeep.end(job, text=good())
    upkeep.look()
    # The one run is recorded, by the new keeper, and the one before is not recorded once more.
    assert [one["result"] for one in upkeep.status()["recentMaintenance"]] == ["Succeeded"]
    upkeep.restart()
    upkeep.look()
    assert len(upkeep.jobs()) == 2 and len(upkeep.status()["recentMaintenance"]) == 1
    upkeep.look("old-restic", kind="ResticRepository")
    # And when it goes, the other knows where it was.
    assert Ledger.of(upkeep.server.get(RESTIC, "old-restic", namespace=NAMESPACE)).runs == 2
    upkeep.client.delete(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    upkeep.clock.advance(25 * HOUR)
    upkeep.look("old-restic", kind="ResticRepository")
    assert [job["metadata"]["annotations"]["longshore.io/run"] for job in upkeep.jobs()] == ["1", "2", "3"]


def test_two_keepers_that_decide_at_once_begin_one_run(upkeep):
    upkeep.repository("old-restic", resource=RESTIC, resticIdentifier="")
    upkeep.repository()
    keepers = [controller._keepers for controller in upkeep.controllers.values()]
    runners = [controller._runner for controller in upkeep.controllers.values()]
    for keeper in keepers:
        keeper.keeper_of = lambda _obj: None
    for runner in runners:
        # Neither sees what the other has begun.
        runner._labelled = lambda _resource, _obj: []
    upkeep.look()
    upkeep.look("old-restic", kind="ResticRepository")
    assert len(upkeep.jobs()) == 1


def test_place_of_a_keeper_outlives_the_object_before(upkeep):
    upkeep.restart(places=1)
    upkeep.repository("old-restic", resource=RESTIC, resticIdentifier="")
    upkeep.look("old-restic", kind="ResticRepository")
    upkeep.pod(upkeep.jobs()[0], phase="Running")
    upkeep.repository()
    upkeep.look()
    upkeep.look("old-restic", kind="ResticRepository")
    upkeep.client.delete(RESTIC, "old-restic", namespace=NAMESPACE)
    upkeep.look("old-restic", kind="ResticRepository")
    upkeep.repository("another", volumeNamespace="another")
    assert upkeep.look("another").after_seconds == 15.0 and len(upkeep.jobs()) == 1


def test_run_that_a_version_before_began_is_adopted(upkeep):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    labels = {name: text for name, text in job["metadata"]["labels"].items() if name != "longshore.io/repository"}
    upkeep.client.delete(JOBS, job["metadata"]["name"], namespace=NAMESPACE)
    old = {"name": "of-its-own-maintain-job-1", "labels": labels, "annotations": job["metadata"]["annotations"]}
    upkeep.server.put(JOBS, {**job, "metadata": old}, namespace=NAMESPACE)
    upkeep.restart()
    assert upkeep.look().after_seconds == 10.0 and len(upkeep.jobs()) == 1


def test_run_that_its_deadline_does_not_end_is_given_up(upkeep):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    upkeep.pod(job, phase="Running")
    upkeep.look()
    said = upkeep.given_up(job, seconds=24 * HOUR + 600)
    assert "did not end at its deadline: seconds=86400" in said
