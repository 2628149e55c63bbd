"""What a run does and how its outcome crosses to the server; runs on threads of the server."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.unit.controllers.fake_datapath import FakeDataPath, FakeRepository, wait_for
from tests.unit.controllers.maintenance_rig import REPOSITORY
from tests.unit.controllers.next_steps import says_step
from tests.unit.controllers.rig import NAMESPACE
from tests.unit.controllers.test_server import condition, repository, serve  # noqa: F401 - a fixture

from longshore.controllers.cluster import ClusterReader
from longshore.controllers.maintenance.ledger import Ledger, Operation, Outcome
from longshore.controllers.maintenance.operation import perform
from longshore.controllers.repositories import Repositories
from longshore.controllers.repository_keys import RepositoryKeys
from longshore.errors import InternalError, SnapshotNotFoundError, StoreUnavailableError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def opener(rig):
    cluster = ClusterReader(rig.client, namespace=NAMESPACE)
    keys = RepositoryKeys(rig.client, namespace=NAMESPACE, cluster=cluster)
    return Repositories(FakeDataPath(rig.world), cluster=cluster, keys=keys)


@pytest.fixture
def snapshots(rig):
    """Two volumes with two snapshots each; gives the ids of the newest."""
    agent = rig.agent().wait_ready()
    pods = [rig.pod(name, claim=name) for name in ("a", "b")]
    made = [rig.done_backup(pod)["snapshotID"] for _ in range(2) for pod, _ in pods]
    agent.terminate()
    rig.world.calls.clear()
    return made[2:]


def run(opener, operation, stop=None, **how):
    stop = threading.Event() if stop is None else stop
    return perform(operation, opener=opener, location="default", namespace="shop", stop=stop, **how)


def called(rig, what):
    return [word for name, word in rig.world.calls if name == what]


def test_maintenance_prunes(rig, opener, snapshots):
    outcome = run(opener, Operation.MAINTENANCE)
    assert outcome.succeeded and outcome.figures["bytes_freed"] == 7 and outcome.figures["snapshots"] == 4
    assert len(called(rig, "prune")) == 1 and outcome.started <= outcome.ended


def test_repository_whose_snapshots_were_deleted_is_left_as_it_is(rig, opener):
    opener.writable(location="default", namespace="shop")
    outcome = run(opener, Operation.MAINTENANCE)
    assert outcome.succeeded and "--allow-empty" not in outcome.message and called(rig, "prune") == []
    rig.world.held = {"packs_before": 3, "bytes_before": 99}
    outcome = run(opener, Operation.MAINTENANCE)
    assert outcome.succeeded and "packs=3, bytes=99; longshore repo prune --allow-empty" in outcome.message
    assert len(called(rig, "look")) == 2 and called(rig, "prune") == []


@pytest.mark.parametrize("operation", Operation)
def test_snapshots_that_a_listing_leaves_out_are_a_failure(rig, opener, operation):
    opener.writable(location="default", namespace="shop")
    rig.world.missing = "ls0-" + "7" * 32
    outcome = run(opener, operation)
    assert not outcome.succeeded and not outcome.nothing and rig.world.missing in outcome.message
    assert says_step(outcome.message) and called(rig, "prune") == []


def test_verification_of_nothing_is_no_success_to_rely_on(rig, opener, snapshots):
    (stored,) = rig.world.repositories.values()
    del stored.snapshots[:]
    outcome = run(opener, Operation.VERIFICATION)
    assert outcome.succeeded and outcome.nothing and "nothing was read back" in outcome.message
    assert Outcome.parse(outcome.text()) == replace(
        outcome, started=outcome.started.replace(microsecond=0), ended=outcome.ended.replace(microsecond=0)
    )


def test_snapshots_deleted_while_they_were_to_be_read_are_nothing_read(rig, opener, snapshots, monkeypatch):
    def verify(_self, snapshot_id):
        raise SnapshotNotFoundError(f"there is no such snapshot: snapshot={snapshot_id}")

    monkeypatch.setattr(FakeRepository, "verify", verify)
    outcome = run(opener, Operation.VERIFICATION)
    assert outcome.nothing and outcome.figures["snapshots"] == 0


def test_no_repository_is_made(rig, opener):
    outcome = run(opener, Operation.MAINTENANCE)
    assert not outcome.succeeded and "no repository" in outcome.message and rig.world.repositories == {}


def test_verification_reads_the_newest_of_each_volume(rig, opener, snapshots):
    outcome = run(opener, Operation.VERIFICATION)
    assert outcome.succeeded and outcome.figures["snapshots"] == 2 and outcome.figures["bytes_read"] == 10
    assert sorted(called(rig, "verify")) == sorted(snapshots)


def test_verification_passes_over_what_is_dated_in_the_future(rig, opener, snapshots):
    (stored,) = rig.world.repositories.values()
    first, other = stored.snapshots[-2], stored.snapshots[-1]
    ahead = first.started_nanos + 10 * 365 * 24 * 3600 * 10**9
    stored.snapshots.append(replace(first, id="ls0-" + "f" * 32, started_nanos=ahead))
    run(opener, Operation.VERIFICATION)
    assert sorted(called(rig, "verify")) == sorted(snapshots)
    # Where a volume has no other it is read all the same.
    rig.world.calls.clear()
    stored.snapshots[:] = [stored.snapshots[-1], other]
    run(opener, Operation.VERIFICATION)
    assert sorted(called(rig, "verify")) == sorted(["ls0-" + "f" * 32, other.id])


def test_verification_of_a_share_reads_that_and_says_so(rig, opener, snapshots):
    outcome = run(opener, Operation.VERIFICATION, share=(3, 20))
    assert outcome.succeeded and "a part of all packs was read back: part=4/20, snapshots=4" in outcome.message
    assert called(rig, "check") == [(3, 20)] and called(rig, "verify") == [] and outcome.figures["bytes_read"] == 3
    assert Outcome.parse(outcome.text()).reported


def test_verification_of_a_share_finds_what_older_snapshots_alone_need(rig, opener, snapshots):
    (stored,) = rig.world.repositories.values()
    oldest = stored.snapshots[0].id
    rig.world.damaged.add(oldest)
    assert run(opener, Operation.VERIFICATION).succeeded
    outcomes = [run(opener, Operation.VERIFICATION, share=(part, 2)) for part in (0, 1)]
    assert [one.succeeded for one in outcomes] == [False, True] and all(one.reported for one in outcomes)
    assert f"named=[{oldest}]" in outcomes[0].message and "part=1/2" in outcomes[0].message
    assert says_step(outcomes[0].message) and outcomes[0].figures["snapshots_hurt"] == 1


def test_run_that_failed_itself_reports_nothing_of_the_repository(rig, opener, snapshots):
    rig.world.down = True
    outcome = run(opener, Operation.VERIFICATION)
    assert not outcome.succeeded and not outcome.reported and not Outcome.parse(outcome.text()).reported
    rig.world.down = False
    rig.world.damaged.add(snapshots[0])
    outcome = run(opener, Operation.VERIFICATION)
    assert not outcome.succeeded and outcome.reported and Outcome.parse(outcome.text()).reported


def test_rates_hold_for_the_run(rig, opener, snapshots):
    run(opener, Operation.VERIFICATION, limit_upload=7, limit_download=9)
    run(opener, Operation.MAINTENANCE)
    assert called(rig, "limits") == [(7, 9), (None, None)]


def test_bounds_of_a_prune_hold_for_the_run(rig, opener, snapshots):
    run(opener, Operation.MAINTENANCE, max_repack=7, fence_after=3600)
    run(opener, Operation.MAINTENANCE)
    assert called(rig, "prune options") == [(7, 3600), (None, None)]


def test_what_was_read_counts_until_all_snapshots_were_read(rig, opener, snapshots, monkeypatch):
    stop = threading.Event()

    def wait(*_args):
        raise StoreUnavailableError("the store is away", "wait")

    with monkeypatch.context() as patch:
        patch.setattr("longshore.controllers.maintenance.operation._wait", wait)
        outcome = perform(Operation.VERIFICATION, opener=opener, location="default", namespace="shop", stop=stop)
    assert not outcome.succeeded and called(rig, "end_verification") == []
    assert run(opener, Operation.VERIFICATION).succeeded and len(called(rig, "end_verification")) == 1


def test_damage_is_named(rig, opener, snapshots):
    rig.world.damaged.add(snapshots[1])
    outcome = run(opener, Operation.VERIFICATION)
    assert not outcome.succeeded and outcome.figures["snapshots_hurt"] == 1
    assert (
        snapshots[1] in outcome.message
        and snapshots[0] not in outcome.message
        and "longshore repo check" in outcome.message
    )


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("the store is away", "wait"), InternalError("oh"), ValueError("no")]
)
def test_every_end_is_an_outcome(rig, opener, snapshots, monkeypatch, error):
    def readable(**_where):
        raise error

    monkeypatch.setattr(opener, "readable", readable)
    outcome = run(opener, Operation.MAINTENANCE)
    assert not outcome.succeeded and str(error) in outcome.message


def test_run_that_is_told_to_stop_stops(rig, opener, snapshots):
    rig.world.gate.clear()
    stop, outcomes = threading.Event(), []
    thread = threading.Thread(target=lambda: outcomes.append(run(opener, Operation.MAINTENANCE, stop)))
    thread.start()
    wait_for(lambda: rig.world.running == 1)
    stop.set()
    thread.join(20)
    assert not outcomes[0].succeeded and "stopped" in outcomes[0].message and rig.world.running == 0


def test_outcome_crosses_whole_and_short():
    outcome = Outcome(succeeded=False, message="why", started=NOW, ended=NOW, figures={"bytes_freed": 3})
    assert Outcome.parse(outcome.text()) == outcome
    for message in ("x" * 100_000, '"' * 100_000, "é\n" * 50_000):
        text = Outcome(succeeded=True, message=message, started=NOW).text()
        assert len(text.encode()) <= 4096 and Outcome.parse(text).message
    secret = Outcome(succeeded=True, message="aws_secret_access_key=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY").text()
    assert "wJalrXUtnFEMI" not in secret


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", '{"longshore": 2, "succeeded": true}', '{"longshore": 1, "succeeded": "yes"}', "panic: x"],
)
def test_other_texts_are_no_outcome(text):
    assert Outcome.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"runs": "many", "maintenance": 7}',
        '{"runs": -3, "maintenance": {"failures": -1, "failed": "x"}}',
    ],
)
def test_spoilt_ledger_is_an_empty_one(text):
    ledger = Ledger.of({"metadata": {"annotations": {"longshore.io/maintenance": text}}})
    assert ledger.runs == 0 and ledger.record(Operation.MAINTENANCE).failures == 0
    after = ledger.after(Operation.MAINTENANCE, Outcome(succeeded=False, message=""), number=4, at=NOW)
    assert Ledger.of({"metadata": {"annotations": {"longshore.io/maintenance": after.text()}}}) == after


def test_report_cannot_both_fail_and_have_nothing():
    text = Outcome(succeeded=True, nothing=True, message="x").text().replace('"succeeded":true', '"succeeded":false')
    assert not Outcome.parse(text).nothing


def due(rig, name="shop-default-kopia"):
    repository(rig, name=name, maintenanceFrequency="1h0m0s")
    found = rig.get(REPOSITORY, name)
    found["status"] = {"lastMaintenanceTime": "2026-01-01T00:00:00Z"}
    rig.server.put(REPOSITORY, found, namespace=NAMESPACE)
    return name


def test_server_without_a_deployment_maintains_by_itself(rig, serve, snapshots):  # noqa: F811 - the fixture
    name = due(rig)
    serve()
    wait_for(lambda: rig.status(REPOSITORY, name).get("recentMaintenance"))
    status = rig.status(REPOSITORY, name)
    assert [one["result"] for one in status["recentMaintenance"]] == ["Succeeded"] and len(called(rig, "prune")) == 1
    assert (
        status["lastMaintenanceTime"] > "2026-01-02" and condition(rig, name, "MaintenanceFailed")["status"] == "False"
    )


def test_run_in_the_server_ends_with_it_and_begins_again(rig, serve, snapshots):  # noqa: F811 - the fixture
    name = due(rig)
    rig.world.gate.clear()
    first = serve()
    wait_for(lambda: called(rig, "prune"))
    first.end()
    assert not first.thread.is_alive() and rig.world.running == 0
    assert "recentMaintenance" not in rig.status(REPOSITORY, name)
    rig.world.gate.set()
    serve()
    wait_for(lambda: rig.status(REPOSITORY, name).get("recentMaintenance"))
    assert len(called(rig, "prune")) == 2


def test_forged_report_is_bounded():
    """What the server gets from a pod is bounded, whoever wrote it."""
    forged = json.dumps(
        {"longshore": 1, "succeeded": True, "message": "m" * 10_000, "figures": {str(n): n for n in range(99)}}
    )
    outcome = Outcome.parse(forged)
    assert len(outcome.message) <= 1500 and len(outcome.figures) <= 20
