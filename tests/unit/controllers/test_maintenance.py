"""Maintenance by schedule: what is due begins once, what runs is adopted, what ended is recorded once, and what fails is told."""

import itertools
from datetime import timedelta

import pytest
from tests.unit.controllers.maintenance_rig import HOUR, NAMESPACE, REPOSITORY, RESTIC, good

from longshore.controllers.maintenance.ledger import ANNOTATION_LEDGER, Outcome
from longshore.errors import ConflictError
from longshore.kube.resource import DEPLOYMENTS, JOBS, PODS


def test_what_is_due_becomes_one_job_and_is_recorded_once(upkeep):
    upkeep.repository()
    assert upkeep.look().after_seconds == 10.0
    (job,) = upkeep.jobs()
    upkeep.look()
    assert upkeep.jobs() == [job] and "recentMaintenance" not in upkeep.status()
    assert upkeep.condition("MaintenanceDue")["status"] == "True"
    upkeep.end(job, text=good())
    upkeep.look()
    status = upkeep.status()
    assert status["lastMaintenanceTime"] == "2026-01-02T03:05:05Z"
    entry = {
        "result": "Succeeded",
        "startTimestamp": "2026-01-02T03:04:05Z",
        "completeTimestamp": "2026-01-02T03:05:05Z",
    }
    assert status["recentMaintenance"] == [{**entry, "message": "freed"}]
    assert upkeep.condition("MaintenanceDue")["status"] == upkeep.condition("MaintenanceFailed")["status"] == "False"
    assert (
        'longshore_repository_freed_bytes_total{kind="BackupRepository",name="shop-default-kopia"} 7.0'
        in upkeep.metrics()
    )
    # Nothing more happens: not by looking again, nor when a server that knows nothing comes.
    written = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    for _ in range(3):
        assert upkeep.look().after_seconds == 300.0
        upkeep.restart()
    assert upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE) == written
    assert len(upkeep.jobs()) == 1 and "velero_repo_maintenance_success_total{" not in upkeep.metrics()


def test_failure_is_told_once_and_tried_again_ever_later(upkeep):
    upkeep.repository()
    last = upkeep.status()["lastMaintenanceTime"]
    waited = []
    for number in range(1, 9):
        while len(upkeep.jobs()) < min(number, 4) or upkeep.jobs()[-1]["metadata"]["annotations"][
            "longshore.io/run"
        ] != str(number):
            began = upkeep.clock.now()
            upkeep.look()
            upkeep.clock.advance(30)
        text = Outcome(succeeded=False, message=f"the store is full: attempt={number}").text()
        upkeep.end(upkeep.jobs()[-1], ok=False, text=text, seconds=0)
        ended = upkeep.clock.now()
        waited.append(began)
        upkeep.look()
    steps = [round((later - earlier).total_seconds() / 60) for earlier, later in itertools.pairwise(waited)]
    assert steps == sorted(steps) and steps[0] in {15, 16} and steps[-1] in {360, 361}
    status = upkeep.status()
    assert status["lastMaintenanceTime"] == last and len(status["recentMaintenance"]) == 8
    assert "the store is full" in status["message"] and status["phase"] == "Ready"
    assert [reason for _, reason, _ in upkeep.recorder.events] == ["MaintenanceFailed"]
    assert upkeep.condition("MaintenanceFailed")["status"] == "True"
    assert (
        'longshore_repository_last_maintenance_failed{kind="BackupRepository",name="shop-default-kopia"} 1.0'
        in upkeep.metrics()
    )
    while upkeep.clock.now() < ended or upkeep.jobs()[-1]["metadata"]["annotations"]["longshore.io/run"] != "9":
        upkeep.look()
        upkeep.clock.advance(60)
    upkeep.end(upkeep.jobs()[-1], text=good())
    upkeep.look()
    assert upkeep.status()["message"] == "" and upkeep.condition("MaintenanceFailed")["status"] == "False"
    assert [reason for _, reason, _ in upkeep.recorder.events] == ["MaintenanceFailed", "MaintenanceSucceeded"]


def test_server_that_starts_adopts_what_runs(upkeep):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    upkeep.pod(job, phase="Running")
    # It is no longer due, but it runs, and its end must be written down.
    found = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    found["spec"]["maintenanceFrequency"] = "0s"
    upkeep.server.put(REPOSITORY, found, namespace=NAMESPACE)
    upkeep.restart()
    assert upkeep.look().after_seconds == 10.0 and len(upkeep.jobs()) == 1
    upkeep.end(job, text=good())
    upkeep.restart()
    upkeep.look()
    assert [one["result"] for one in upkeep.status()["recentMaintenance"]] == ["Succeeded"]


def test_two_servers_begin_one_run(upkeep):
    upkeep.repository()
    first = upkeep.controllers["BackupRepository"]
    runner = first._runner
    obj = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    upkeep.restart()
    upkeep.look()
    # The other one decided before it could see the Job.
    runner.begin(obj, operation="maintenance", number=1, settings=first._reader.settings_of(obj["spec"]))
    assert len(upkeep.jobs()) == 1
    upkeep.end(upkeep.jobs()[0], text=good())
    upkeep.look()
    before = upkeep.status()["recentMaintenance"]
    first.sync(f"{NAMESPACE}/shop-default-kopia")
    assert upkeep.status()["recentMaintenance"] == before and len(before) == 1


def test_result_is_not_recorded_over_somebody_elses_write(upkeep):
    upkeep.repository()
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], text=good())
    real = upkeep.client.patch
    beaten = []

    def patch(resource, name, body, **options):
        if not beaten:
            beaten.append(body)
            found = upkeep.server.get(REPOSITORY, name, namespace=NAMESPACE)
            found["metadata"].setdefault("labels", {})["touched"] = "yes"
            upkeep.server.put(REPOSITORY, found, namespace=NAMESPACE)
        return real(resource, name, body, **options)

    upkeep.client.patch = patch
    with pytest.raises(ConflictError):
        upkeep.look()
    assert "recentMaintenance" not in upkeep.status()
    upkeep.look()
    assert len(upkeep.status()["recentMaintenance"]) == 1


def test_ledger_that_was_taken_away_costs_no_second_entry(upkeep):
    upkeep.repository()
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], text=good())
    upkeep.look()
    found = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    del found["metadata"]["annotations"][ANNOTATION_LEDGER]
    upkeep.server.put(REPOSITORY, found, namespace=NAMESPACE)
    upkeep.clock.advance(25 * HOUR)
    with pytest.raises(ConflictError):
        upkeep.look()
    upkeep.look()
    assert len(upkeep.status()["recentMaintenance"]) == 1
    upkeep.look()
    assert [job["metadata"]["annotations"]["longshore.io/run"] for job in upkeep.jobs()] == ["1", "2"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "kubectl describe job"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ],
            },
            "Unschedulable: 0/3 nodes",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
                ],
            },
            "ImagePullBackOff: no such image",
        ),
    ],
)
def test_run_that_never_starts_is_given_up(upkeep, status, said):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    if status is not None:
        upkeep.pod(job, **status)
    upkeep.look()
    assert said in upkeep.given_up(job, seconds=600)
    assert len(upkeep.recorder.events) == 1


def test_run_that_was_given_up_may_not_go_on(upkeep):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    real = upkeep.client.delete
    upkeep.client.delete = lambda *_words, **_more: (_ for _ in ()).throw(ConflictError("not now"))
    upkeep.look()
    upkeep.clock.advance(601)
    with pytest.raises(ConflictError):
        upkeep.look()
    upkeep.client.delete = real
    upkeep.pod(job, phase="Running")
    upkeep.look()
    assert upkeep.jobs() == [] and len(upkeep.status()["recentMaintenance"]) == 1


def test_ended_jobs_are_kept_by_number(upkeep):
    upkeep.repository()
    upkeep.restart(keep=2)
    for _ in range(4):
        upkeep.look()
        upkeep.end(upkeep.jobs()[-1], text=good())
        upkeep.look()
        upkeep.clock.advance(25 * HOUR)
    assert [job["metadata"]["annotations"]["longshore.io/run"] for job in upkeep.jobs()] == ["3", "4"]


def test_one_object_keeps_a_repository_and_others_show_it(upkeep):
    upkeep.repository("old-restic", resource=RESTIC, resticIdentifier="")
    upkeep.repository()
    assert upkeep.look("old-restic", kind="ResticRepository").after_seconds == 60.0
    upkeep.look()
    (job,) = upkeep.jobs()
    assert job["metadata"]["ownerReferences"][0]["kind"] == "BackupRepository"
    upkeep.end(job, text=good())
    upkeep.look()
    upkeep.look("old-restic", kind="ResticRepository")
    mirrored = upkeep.status("old-restic", resource=RESTIC)
    assert mirrored["lastMaintenanceTime"] == upkeep.status()["lastMaintenanceTime"] == "2026-01-02T03:05:05Z"
    assert upkeep.condition("MaintenanceFailed", "old-restic", resource=RESTIC)["status"] == "False"
    # Alone it is served itself.
    upkeep.client.delete(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    upkeep.clock.advance(25 * HOUR)
    upkeep.look("old-restic", kind="ResticRepository")
    owners = [job["metadata"]["ownerReferences"][0]["kind"] for job in upkeep.jobs()]
    assert sorted(owners) == ["BackupRepository", "ResticRepository"]


def test_only_some_run_at_once(upkeep):
    upkeep.restart(places=2)
    names = [upkeep.repository(f"r{number}", volumeNamespace=f"n{number}") for number in range(4)]
    waits = [upkeep.look(name).after_seconds for name in names]
    assert len(upkeep.jobs()) == 2 and waits == [10.0, 10.0, 15.0, 15.0]
    upkeep.end(
        next(job for job in upkeep.jobs() if job["metadata"]["labels"]["velero.io/repo-name"] == "r0"), text=good()
    )
    for name in names:
        upkeep.look(name)
    assert sorted(job["metadata"]["labels"]["velero.io/repo-name"] for job in upkeep.server.objects(JOBS)) == [
        "r0",
        "r1",
        "r2",
    ]


@pytest.mark.parametrize(
    ("phase", "access", "frequency", "runs"),
    [
        ("Ready", "ReadWrite", "24h0m0s", ["maintenance"]),
        ("NotReady", "ReadWrite", "24h0m0s", []),
        ("Ready", "ReadOnly", "24h0m0s", ["verification"]),
        ("Ready", "ReadWrite", "0s", ["verification"]),
        ("Ready", "ReadWrite", "soon", ["verification"]),
    ],
)
def test_what_may_run(upkeep, phase, access, frequency, runs):
    upkeep.location(accessMode=access)
    upkeep.repository(phase=phase, maintenanceFrequency=frequency, ago=8 * 24 * HOUR)
    upkeep.look()
    assert [job["metadata"]["labels"]["longshore.io/operation"] for job in upkeep.jobs()] == runs
    if frequency == "soon":
        assert (
            upkeep.condition("MaintenanceDue")["status"] == "Unknown"
            and "24h0m0s" in upkeep.condition("MaintenanceDue")["message"]
        )


def test_verification_follows_maintenance_and_has_its_own_place(upkeep):
    upkeep.repository(ago=8 * 24 * HOUR)
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], text=good())
    upkeep.look()
    _, job = upkeep.jobs()
    assert job["metadata"]["labels"]["longshore.io/operation"] == "verification"
    assert "--operation=verification" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    text = Outcome(succeeded=False, message="the repository is damaged: snapshots_hurt=1").text()
    upkeep.end(job, ok=False, text=text)
    upkeep.look()
    status = upkeep.status()
    assert [one["result"] for one in status["recentMaintenance"]] == ["Succeeded"]
    assert [one["result"] for one in status["recentVerification"]] == ["Failed"]
    assert upkeep.condition("VerificationFailed")["status"] == "True" and "damaged" in status["message"]
    assert [reason for _, reason, _ in upkeep.recorder.events] == ["VerificationFailed"]
    assert (
        'longshore_repository_last_verification_failed{kind="BackupRepository",name="shop-default-kopia"} 1.0'
        in upkeep.metrics()
    )


@pytest.mark.parametrize(
    ("annotation", "hours", "runs"), [("1h", 2, 1), ("0s", 10_000, 0), (None, 167, 0), (None, 169, 1)]
)
def test_annotation_says_how_often_is_verified(upkeep, annotation, hours, runs):
    upkeep.repository(maintenanceFrequency="0s", ago=hours * HOUR)
    if annotation:
        found = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
        found["metadata"]["annotations"] = {"longshore.io/verify-frequency": annotation}
        upkeep.server.put(REPOSITORY, found, namespace=NAMESPACE)
    upkeep.look()
    assert len(upkeep.jobs()) == runs


def shares(upkeep, *endings):
    """Let verifications come due one after another and end so; gives the share that each was told to read."""
    found = []
    for ok in endings:
        upkeep.clock.advance(25 * HOUR)
        upkeep.look()
        job = upkeep.jobs()[-1]
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        found.append([one.removeprefix("--share=") for one in args if one.startswith("--share=")])
        # None is a run that came to no report.
        text = "" if ok is None else Outcome(succeeded=ok, reported=True, message=f"x{len(upkeep.jobs())}").text()
        upkeep.end(job, ok=bool(ok), text=text)
        upkeep.look()
    return found


def test_each_verification_reads_the_next_share_and_a_damaged_one_again_in_extra_turns(upkeep):
    upkeep.repository(maintenanceFrequency="0s")
    upkeep.restart(verify_frequency=timedelta(days=1), verify_parts=3)
    assert shares(upkeep, True, True) == [["0/3"], ["1/3"]]
    # Another server knows whose turn it is.
    upkeep.restart(verify_frequency=timedelta(days=1), verify_parts=3)
    assert shares(upkeep, False, True, True) == [["2/3"], ["2/3"], ["0/3"]]
    assert shares(upkeep, False, False, True) == [["1/3"], ["1/3"], ["2/3"]]
    upkeep.restart(verify_frequency=timedelta(days=1), verify_parts=3)
    assert shares(upkeep, False, True, False, True) == [["1/3"], ["0/3"], ["1/3"], ["1/3"]]


def test_a_whole_part_does_not_end_the_alarm_of_a_damaged_one(upkeep):
    upkeep.repository(maintenanceFrequency="0s")
    upkeep.restart(verify_frequency=timedelta(days=1), verify_parts=3)
    assert shares(upkeep, False, False, True) == [["0/3"], ["0/3"], ["1/3"]]
    held = upkeep.condition("VerificationFailed")
    assert held["status"] == "True" and held["message"] == "x2" and "x2" in upkeep.status()["message"]
    failed = 'longshore_repository_last_verification_failed{kind="BackupRepository",name="shop-default-kopia"} '
    assert failed + "1.0" in upkeep.metrics()
    assert [one["result"] for one in upkeep.status()["recentVerification"]] == ["Failed", "Failed", "Succeeded"]
    assert shares(upkeep, True) == [["0/3"]]
    assert upkeep.condition("VerificationFailed")["status"] == "False" and upkeep.status()["message"] == ""
    assert failed + "0.0" in upkeep.metrics()
    reasons = [reason for _, reason, _ in upkeep.recorder.events]
    assert reasons == ["VerificationFailed", "VerificationSucceeded"]


def test_a_part_whose_runs_come_to_no_report_is_tried_three_times(upkeep):
    upkeep.repository(maintenanceFrequency="0s")
    upkeep.restart(verify_frequency=timedelta(days=1), verify_parts=3)
    assert shares(upkeep, None, None, None, True, True) == [["0/3"], ["0/3"], ["0/3"], ["1/3"], ["2/3"]]
    assert upkeep.condition("VerificationFailed")["status"] == "False"


def test_map_and_annotation_say_how_much_a_verification_reads(upkeep):
    upkeep.repository(maintenanceFrequency="0s")
    upkeep.restart(verify_frequency=timedelta(days=1))
    assert shares(upkeep, True) == [[]]
    upkeep.config_map(**{"global": '{"verifySample": "10%"}'})
    upkeep.restart(verify_frequency=timedelta(days=1), config_map="maintenance")
    assert shares(upkeep, True) == [["1/10"]]
    found = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    found["metadata"]["annotations"] |= {"longshore.io/verify-sample": "50%"}
    upkeep.server.put(REPOSITORY, found, namespace=NAMESPACE)
    assert shares(upkeep, True) == [["0/2"]]


def test_verification_of_nothing_dates_no_success_and_is_looked_at_again_in_a_day(upkeep):
    upkeep.repository(maintenanceFrequency="0s")
    upkeep.restart(verify_frequency=timedelta(days=1))
    last = upkeep.status()["lastVerificationTime"]
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], ok=False, text=Outcome(succeeded=False, message="damaged").text())
    upkeep.look()
    upkeep.clock.advance(2 * HOUR)
    upkeep.look()
    nothing = Outcome(succeeded=True, nothing=True, message="the repository has no snapshot").text()
    upkeep.end(upkeep.jobs()[1], text=nothing)
    upkeep.look()
    status = upkeep.status()
    assert status["lastVerificationTime"] == last and len(status["recentVerification"]) == 1
    held = upkeep.condition("VerificationFailed")
    assert (held["status"], held["reason"]) == ("False", "NothingThere") and "no snapshot" in held["message"]
    assert [reason for _, reason, _ in upkeep.recorder.events] == ["VerificationFailed", "VerificationEndedWithNothing"]
    assert (
        'verification_runs_total{kind="BackupRepository",name="shop-default-kopia",result="succeeded"}'
        not in upkeep.metrics()
    )
    # Neither at once again nor never; and it is not overdue, for there is nothing that waits for it.
    upkeep.restart(verify_frequency=timedelta(days=1))
    upkeep.clock.advance(23 * HOUR)
    upkeep.look()
    assert len(upkeep.jobs()) == 2
    due = [
        line
        for line in upkeep.metrics().splitlines()
        if line.startswith("longshore_repository_verification_due_timestamp_seconds{")
    ]
    assert float(due[0].split()[-1]) > upkeep.clock.now().timestamp()
    upkeep.clock.advance(HOUR + 60)
    upkeep.look()
    assert len(upkeep.jobs()) == 3
    upkeep.end(upkeep.jobs()[2], text=good())
    upkeep.look()
    assert upkeep.status()["lastVerificationTime"] != last and len(upkeep.status()["recentVerification"]) == 2


def test_first_run_is_counted_from_the_objects_creation(upkeep):
    upkeep.repository()
    found = upkeep.server.get(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    found["status"] = {"phase": "Ready"}
    upkeep.server.put(REPOSITORY, found, namespace=NAMESPACE)
    upkeep.look()
    assert upkeep.jobs() == []
    upkeep.clock.advance(24 * HOUR + 1)
    upkeep.look()
    assert len(upkeep.jobs()) == 1


def test_times_from_the_future_put_nothing_off(upkeep):
    upkeep.repository(ago=-10 * 365 * 24 * HOUR)
    upkeep.look()
    (job,) = upkeep.jobs()
    upkeep.end(job, text=good().replace('"ended":null', '"ended":"2036-01-01T00:00:00Z"'))
    upkeep.look()
    assert upkeep.status()["lastMaintenanceTime"] == "2026-01-02T03:05:05Z"


def test_server_that_does_not_lead_does_nothing(upkeep):
    upkeep.repository()
    upkeep.lease.leads = False
    assert upkeep.look().after_seconds == 5.0
    assert upkeep.jobs() == [] and "conditions" not in upkeep.status()


def test_deployment_that_is_not_there_is_told(upkeep):
    upkeep.client.delete(DEPLOYMENTS, "longshore-server", namespace=NAMESPACE)
    upkeep.repository()
    upkeep.look()
    assert "--maintenance=server" in upkeep.condition("MaintenanceFailed")["message"]


def test_repository_that_is_gone_is_forgotten(upkeep):
    upkeep.repository()
    upkeep.restart(places=1)
    upkeep.look()
    upkeep.client.delete(REPOSITORY, "shop-default-kopia", namespace=NAMESPACE)
    assert upkeep.look() is None
    assert 'name="shop-default-kopia"' not in upkeep.metrics()
    for job in upkeep.jobs():
        upkeep.client.delete(JOBS, job["metadata"]["name"], namespace=NAMESPACE)
    upkeep.repository("another")
    upkeep.look("another")
    assert len(upkeep.jobs()) == 1 and not upkeep.server.objects(PODS)
