"""The server: locations are looked at, repositories are made, opened and judged, one leader does it, and nothing is claimed that did not happen."""

import os
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.unit.controllers.fake_datapath import FakeDataPath, wait_for
from tests.unit.controllers.rig import BSL, NAMESPACE, PVB, RESOURCES, TIMES, records
from tests.unit.controllers.test_keys import KEY_TEXT, lay_down

from longshore.controllers.unclaimed import UnclaimedBackups
from longshore.kube.client import KubeClient
from longshore.kube.resource import EVENTS, LEASES, SECRETS
from longshore.server import MaintenanceMode, Server, ServerSettings

REPOSITORY, RESTIC = RESOURCES["BackupRepository"], RESOURCES["ResticRepository"]


class RunningServer:
    def __init__(self, rig, **settings):
        self.stop = threading.Event()
        self.client = KubeClient.from_kubeconfig(rig.server.kubeconfig_path)
        wanted = {
            "namespace": NAMESPACE,
            "metrics_address": "127.0.0.1:0",
            "lease_times": TIMES,
            "repository_look_seconds": 0.2,
            "resync_seconds": 0.2,
            "store_validation_frequency_seconds": 0.2,
            "grace_seconds": 5.0,
            **settings,
        }
        self.server = Server(
            ServerSettings(**wanted), client=self.client, datapath=FakeDataPath(rig.world), stop=self.stop
        )
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.server.run()
        except BaseException as err:
            self.error = err

    def end(self):
        self.stop.set()
        self.thread.join(20)
        self.client.close()


@pytest.fixture
def serve(rig):
    running = []

    def start(**settings):
        running.append(RunningServer(rig, **settings))
        return running[-1]

    yield start
    for one in running:
        one.end()


def repository(rig, name="shop-default-kopia", resource=REPOSITORY, **spec):
    body = {"volumeNamespace": "shop", "backupStorageLocation": "default", "maintenanceFrequency": "24h0m0s", **spec}
    rig.server.put(resource, {"metadata": {"name": name}, "spec": body}, namespace=NAMESPACE)
    return name


def condition(rig, name, type_, resource=REPOSITORY):
    found = [one for one in rig.status(resource, name).get("conditions") or [] if one["type"] == type_]
    return found[0] if found else None


def test_good_location_is_available_and_becomes_the_default(rig, serve):
    serve()
    status = rig.wait_phase(BSL, "default", "Available")
    assert status["message"] == "" and status["lastValidationTime"]
    wait_for(lambda: rig.get(BSL, "default")["spec"].get("default") is True)
    first = status["lastValidationTime"]
    wait_for(lambda: rig.status(BSL, "default")["lastValidationTime"] > first, what="it is looked at again")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"provider": "gcp"}, "not served"),
        ({"config": {"path": "/nowhere/at/all"}}, "mount or create the folder"),
        ({"config": {}}, "config.path"),
        ({"provider": 5}, "provider"),
        ({"provider": "aws", "objectStorage": {"bucket": "bucket"}, "config": {"region": "x y"}}, "region"),
    ],
)
def test_bad_location_is_unavailable_and_says_why(rig, serve, out, spec, said):
    rig.location("bad", **spec)
    serve()
    status = rig.wait_phase(BSL, "bad", "Unavailable")
    assert said in status["message"]
    assert rig.wait_phase(BSL, "default", "Available")
    (event,) = wait_for(lambda: rig.events("bad", "Unavailable"))
    assert event["type"] == "Warning" and event["count"] == 1 and event["message"] == status["message"]
    (record,) = records(out, "Location changed its phase", location="bad")
    assert (record["level"], record["phase"], record["reason"]) == ("warning", "Unavailable", status["message"])


def test_location_for_which_no_place_has_credentials_is_unavailable_and_names_each_place(rig, serve, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    rig.location("bad", provider="aws", objectStorage={"bucket": "bucket"}, config={"region": "us-east-1"})
    serve()
    message = rig.wait_phase(BSL, "bad", "Unavailable")["message"]
    assert "no credentials were found" in message and "name it in spec.credential" in message
    for place in (
        "spec.credential",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "instance metadata",
    ):
        assert place in message, message
    assert rig.wait_phase(BSL, "default", "Available")


def test_strangers_at_the_top_make_it_unavailable(rig, serve):
    (rig.store / "photos").mkdir()
    (rig.store / "photos" / "one").write_text("x")
    serve()
    assert "photos" in rig.wait_phase(BSL, "default", "Unavailable")["message"]
    (rig.store / "photos" / "one").unlink()
    rig.wait_phase(BSL, "default", "Available")


def test_location_that_is_never_looked_at_again_is_looked_at_when_changed(rig, serve):
    rig.location("default", validationFrequency="0s")
    serve()
    first = rig.wait_phase(BSL, "default", "Available")
    found = rig.get(BSL, "default")
    found["spec"]["config"] = {"path": "/nowhere"}
    rig.server.put(BSL, found, namespace=NAMESPACE)
    assert rig.wait_phase(BSL, "default", "Unavailable") != first


def test_several_defaults_are_told_and_left(rig, serve):
    for name in ("one", "two"):
        rig.location(name, default=True)
    serve()
    wait_for(lambda: [one for one in rig.server.objects(EVENTS) if one["reason"] == "SeveralDefaults"])
    assert {name: rig.get(BSL, name)["spec"].get("default") for name in ("one", "two", "default")} == {
        "one": True,
        "two": True,
        "default": None,
    }


@pytest.mark.parametrize("resource", [REPOSITORY, RESTIC], ids=["BackupRepository", "ResticRepository"])
def test_repository_is_made_and_ready(rig, serve, resource):
    name = repository(rig, resource=resource, resticIdentifier="s3:x")
    serve()
    status = rig.wait_phase(resource, name, "Ready")
    assert len(rig.world.repositories) == 1 and status["message"] == ""
    assert "lastMaintenanceTime" not in status and not status.get("recentMaintenance")
    # By another controller, after it was said to be ready.
    assert wait_for(lambda: condition(rig, name, "MaintenanceDue", resource))["status"] == "False"


def test_key_at_risk_is_said_until_there_is_a_recovery_slot(rig, serve):
    name = repository(rig)
    serve()
    rig.wait_phase(REPOSITORY, name, "Ready")
    found = wait_for(lambda: condition(rig, name, "RecoveryKeyMissing"))
    assert found["status"] == "True" and "longshore repo key add" in found["message"]
    wait_for(lambda: [one for one in rig.server.objects(EVENTS) if one["reason"] == "RecoveryKeyMissing"])
    lay_down(rig, "longshore-recovery", recovery_key=KEY_TEXT)
    wait_for(lambda: condition(rig, name, "RecoveryKeyMissing")["status"] == "False")


def test_repository_of_another_key_is_not_ready_and_comes_back(rig, serve):
    name = repository(rig)
    first = serve()
    rig.wait_phase(REPOSITORY, name, "Ready")
    first.end()
    key = rig.server.get(SECRETS, "longshore-repo-credentials", namespace=NAMESPACE)
    lay_down(rig, repository_key=KEY_TEXT)
    serve()
    status = rig.wait_phase(REPOSITORY, name, "NotReady")
    assert "another key" in status["message"] and "longshore-repo-credentials" in status["message"]
    rig.server.put(SECRETS, key, namespace=NAMESPACE)
    # Nothing but the next look brings it back: no field of the object changes.
    rig.wait_phase(REPOSITORY, name, "Ready")


def test_read_only_location_is_opened_and_nothing_is_made(rig, serve):
    rig.location("default", accessMode="ReadOnly")
    name = repository(rig)
    serve()
    assert "no repository" in rig.wait_phase(REPOSITORY, name, "NotReady")["message"]
    assert rig.world.repositories == {}


def test_maintenance_that_is_due_is_told_and_not_faked(rig, serve):
    name = repository(rig, maintenanceFrequency="1h0m0s")
    found = rig.get(REPOSITORY, name)
    found["status"] = {"lastMaintenanceTime": "2026-01-01T00:00:00Z"}
    rig.server.put(REPOSITORY, found, namespace=NAMESPACE)
    serve(maintenance_mode=MaintenanceMode.OFF)
    rig.wait_phase(REPOSITORY, name, "Ready")
    due = wait_for(lambda: condition(rig, name, "MaintenanceDue"))
    assert due["status"] == "True" and "2026-01-01T01:00:00Z" in due["message"]
    assert rig.status(REPOSITORY, name)["lastMaintenanceTime"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "spec", [{"maintenanceFrequency": "soon"}, {"volumeNamespace": "../x"}, {"backupStorageLocation": ""}]
)
def test_nonsense_in_a_repository(rig, serve, spec):
    name = repository(rig, **spec)
    serve()
    status = rig.wait_phase(REPOSITORY, name, "Ready" if "maintenanceFrequency" in spec else "NotReady")
    assert status["phase"] == "Ready" or len(status["message"]) > 10


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"volumeNamespace": 7}, {}),
        ({"volumeNamespace": {"a": []}}, {}),
        ({"backupStorageLocation": None}, {}),
        ({"backupStorageLocation": ["default"]}, {}),
        ({"maintenanceFrequency": -5}, {}),
        ({"maintenanceFrequency": {"hours": 1}}, {}),
        ({"repositoryType": 3}, {}),
        ({"repositoryConfig": "x"}, {}),
        ({"resticIdentifier": {}}, {}),
        ({}, "Ready"),
        ({}, {"phase": 7, "message": []}),
        ({}, {"conditions": "none"}),
        ({}, {"conditions": [7, {"type": 1}]}),
        ({}, {"lastMaintenanceTime": "yesterday", "recentMaintenance": {"a": 1}}),
        ({}, {"recentMaintenance": [None, "x", {"startTimestamp": 1}]}),
    ],
)
def test_any_nonsense_in_a_repository_harms_no_other(rig, serve, spec, status):
    name = repository(rig, name="nonsense", **spec)
    found = rig.get(REPOSITORY, name)
    found["status"] = status
    rig.server.put(REPOSITORY, found, namespace=NAMESPACE)
    good = repository(rig, name="good", volumeNamespace="other")
    serve()
    rig.wait_phase(REPOSITORY, good, "Ready")

    def told():
        now = rig.get(REPOSITORY, name).get("status")
        now = now if isinstance(now, dict) else {}
        return now.get("phase") == "Ready" or (now.get("phase") == "NotReady" and len(now.get("message") or "") > 10)

    wait_for(told, what="it is ready, or says why not")


def test_repositories_are_made_for_backups(rig, serve):
    pod, _path = rig.pod()
    rig.backup(pod)
    rig.backup(pod, backupStorageLocation="other", uploaderType="restic")
    rig.backup(pod, backupStorageLocation="Not A Name")
    rig.backup(pod, backupStorageLocation=7)
    serve()
    rig.wait_phase(REPOSITORY, "shop-default-kopia", "Ready")
    assert "location" in rig.wait_phase(REPOSITORY, "shop-other-restic", "NotReady")["message"]
    names = sorted(one["metadata"]["name"] for one in rig.server.objects(REPOSITORY))
    assert names == ["shop-default-kopia", "shop-other-restic"]


def test_existing_repository_object_is_enough(rig, serve):
    repository(rig, name="made-by-velero")
    pod, _path = rig.pod()
    rig.backup(pod)
    running = serve()
    rig.wait_phase(REPOSITORY, "made-by-velero", "Ready")
    wait_for(lambda: running.server.manager.ready().ok)
    assert [one["metadata"]["name"] for one in rig.server.objects(REPOSITORY)] == ["made-by-velero"]


def test_one_leader_works_and_the_other_follows(rig, serve):
    first = serve()
    rig.wait_phase(BSL, "default", "Available")
    second = serve()
    held = rig.server.get(LEASES, "longshore-server", namespace=NAMESPACE)["spec"]["holderIdentity"]
    assert held == first.server.instance and not second.server.lease.is_leader()
    first.end()
    wait_for(second.server.lease.is_leader)
    rig.location("late")
    rig.wait_phase(BSL, "late", "Available")


def test_server_that_does_not_lead_writes_nothing(rig, serve):
    other = {"holderIdentity": "another", "leaseDurationSeconds": 3600, "renewTime": "2026-01-01T00:00:00.000000Z"}
    rig.server.put(LEASES, {"metadata": {"name": "longshore-server"}, "spec": other}, namespace=NAMESPACE)
    name = repository(rig)
    pod, _path = rig.pod(namespace="other")
    rig.backup(pod)
    running = serve()
    controllers = running.server.manager.controllers
    wait_for(lambda: controllers and all(one.has_synced() for one in controllers))
    wait_for(lambda: all(not len(one.queue) and not one.queue.longest_running_seconds() for one in controllers))
    assert not running.server.lease.is_leader()
    assert rig.status(BSL, "default") == rig.status(REPOSITORY, name) == {} and rig.world.repositories == {}
    assert [one["metadata"]["name"] for one in rig.server.objects(REPOSITORY)] == [name]


def test_metrics_and_probes(rig, serve):
    running = serve()
    rig.wait_phase(BSL, "default", "Available")
    port = running.server.http.port

    def fetch(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.read().decode()

    wait_for(lambda: 'velero_backup_location_status_gauge{backup_location_name="default"} 1.0' in fetch("/metrics"))
    assert fetch("/healthz") == "ok\n" and fetch("/readyz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch("/secrets")


@pytest.mark.parametrize("node", ["node-9", "", "No Node", "../..", 7, None])
def test_backup_that_no_agent_takes_on_is_told(rig, serve, out, node):
    pod, _path = rig.pod()
    name = rig.backup(pod)
    found = rig.get(PVB, name)
    found["spec"]["node"] = node
    rig.server.put(PVB, found, namespace=NAMESPACE)
    serve(unclaimed_seconds=0.0)
    # It is looked at again and again: the Event counts that, and the log says it once.
    (event,) = wait_for(lambda: [one for one in rig.events(name, "NoAgent") if one["count"] > 2])
    assert event["type"] == "Warning" and f"node={node if isinstance(node, str) else ''!r}" in event["message"]
    assert rig.status(PVB, name) == {}
    (record,) = records(out, "No agent takes a backup on")
    assert record["key"] == f"{NAMESPACE}/{name}" and record["reason"] == event["message"]
    assert record["level"] == "warning"


@pytest.mark.parametrize("is_leader", [True, False])
def test_backup_that_an_agent_will_take_on_is_not_told(rig, is_leader):
    """One is young, one is at work, one waits for its turn; those whose agent is gone or never was are told."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def agent_on(node, *, renewed, holder="x"):
        spec = {"holderIdentity": holder, "renewTime": f"2025-12-31T{renewed}.000000Z"}
        name = f"longshore-node-agent-{node}"
        rig.server.put(LEASES, {"metadata": {"name": name}, "spec": spec}, namespace=NAMESPACE)

    def backup(name, node, *, made="12:00:00", **status):
        metadata = {"name": name, "creationTimestamp": f"2025-12-31T{made}Z"}
        return {"metadata": metadata, "spec": {"node": node}, "status": status}

    agent_on("busy", renewed="23:59:30")
    agent_on("gone", renewed="23:00:00")
    agent_on("stopped", renewed="23:59:30", holder="")
    told = []
    recorder = SimpleNamespace(record=lambda obj, type_, reason, message: told.append(obj["metadata"]["name"]))
    lease, clock = SimpleNamespace(is_leader=lambda: is_leader), SimpleNamespace(now=lambda: now)
    look = UnclaimedBackups(
        rig.client, namespace=NAMESPACE, lease=lease, recorder=recorder, age_seconds=60.0, clock=clock
    )
    look.look(
        [
            backup("waits", "busy"),
            backup("young", "nowhere", made="23:59:30"),
            backup("at-work", "nowhere", phase="InProgress"),
            backup("over", "nowhere", phase="Completed"),
            backup("gone", "gone"),
            backup("stopped", "stopped", phase="New"),
            backup("never", "nowhere"),
        ]
    )
    assert told == (["gone", "stopped", "never"] if is_leader else [])
