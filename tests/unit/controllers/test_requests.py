"""What of an object and of the agent's settings reaches the data path, and what the object is told while it works."""

from dataclasses import replace

import pytest
from tests.unit.controllers import fake_datapath
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import NAMESPACE, PVB, PVR


def requests(rig, kind):
    return [request for name, request in rig.world.calls if name == kind]


@pytest.mark.parametrize("uploader", ["restic", "kopia", "", "something-new"])
def test_every_uploader_is_served(rig, uploader):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent()
    status = rig.done_backup(pod, uploaderType=uploader)
    assert status["phase"] == "Completed"
    back, target = rig.waiting_pod()
    name = rig.restore(back, status["snapshotID"], uploaderType=uploader)
    assert rig.wait_phase(PVR, name)["phase"] == "Completed" and (target / "a").read_bytes() == b"x"


def test_empty_volume_goes_out_and_back(rig):
    pod, _path = rig.pod()
    rig.agent()
    status = rig.done_backup(pod)
    assert status["phase"] == "Completed" and status["snapshotID"] == rig.snapshots()[0].id
    assert status["progress"] == {"totalBytes": 0, "bytesDone": 0, "totalFiles": 0, "filesDone": 0, "bytesPerSecond": 0}
    back, target = rig.waiting_pod()
    assert rig.wait_phase(PVR, rig.restore(back, status["snapshotID"]))["phase"] == "Completed"
    assert [one.name for one in target.iterdir()] == [".velero"]


def test_uploader_settings_arrive(rig):
    pod, _path = rig.pod()
    rig.agent()
    settings = {"ParallelFilesUpload": "7", "SparseFiles": "true"}
    snapshot = rig.done_backup(pod, uploaderSettings=settings, parentSnapshot="none")["snapshotID"]
    asked = requests(rig, "backup")[0]
    assert (asked.workers, asked.parent, asked.strict) == (7, "none", False)
    back, _target = rig.waiting_pod()
    rig.wait_phase(PVR, rig.restore(back, snapshot, uploaderSettings={"ParallelFilesDownload": "5"}))
    assert requests(rig, "restore")[0].workers == 5


@pytest.mark.parametrize(("snapshot", "tool"), [("abcdef12", "restic"), ("ab" * 32, "restic"), ("ab" * 16, "kopia")])
def test_foreign_snapshot_says_what_restores_it(rig, snapshot, tool):
    back, _target = rig.waiting_pod()
    rig.agent()
    message = rig.wait_phase(PVR, rig.restore(back, snapshot))["message"]
    assert f"made by {tool}" in message and "; restore with " in message and rig.world.calls == []


@pytest.mark.parametrize(
    ("repo_identifier", "namespace"),
    [
        ("s3:http://minio:9000/velero/restic/shop", "shop"),
        ("s3:s3-eu-west-1.amazonaws.com/bucket/restic/shop/", "shop"),
        ("", "shop-copy"),
        ("/", "shop-copy"),
        ("s3:http://x/Not_A_Namespace", "shop-copy"),
        ("s3:http://x/..", "shop-copy"),
    ],
)
def test_source_namespace_that_is_not_said(rig, repo_identifier, namespace):
    """A Velero that does not say it (1.9) tells it by the address of restic's repository; else it is the pod's."""
    pod, path = rig.pod(namespace=namespace)
    (path / "a").write_bytes(b"x")
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod(namespace="shop-copy")
    name = rig.restore(back, snapshot, sourceNamespace="", repoIdentifier=repo_identifier)
    status = rig.wait_phase(PVR, name)
    assert status["phase"] == "Completed", status
    assert (target / "a").read_bytes() == b"x"


@pytest.mark.parametrize("strict", [None, "true", "false", "TRUE"])
def test_files_that_changed_are_named(rig, strict, monkeypatch):
    """Completed, with the message; Failed where the annotation asks for it."""
    work = fake_datapath.FakeRepository._backup

    def changing(self, job, request):
        done = work(self, job, request)
        code = 3 if request.strict else 0
        return replace(done, items_changed=2, changed=(b"db/wal", b"odd\n"), exit_code=code)

    monkeypatch.setattr(fake_datapath.FakeRepository, "_backup", changing)
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    name = rig.backup(pod, node="later")
    obj = rig.get(PVB, name)
    obj["spec"]["node"] = "node-1"
    obj["metadata"]["annotations"] = {} if strict is None else {"longshore.io/strict": strict}
    rig.server.put(PVB, obj, namespace=NAMESPACE)
    rig.agent()
    status = rig.wait_phase(PVB, name)
    assert "db/wal" in status["message"] and "odd\\x0a" in status["message"] and "changed" in status["message"]
    assert status["snapshotID"] == rig.snapshots()[0].id
    assert requests(rig, "backup")[0].strict is (strict == "true")
    assert status["phase"] == ("Failed" if strict == "true" else "Completed")


def test_progress_is_written_only_when_it_moved(rig, monkeypatch):
    """A job that stands still writes nothing, however often it is looked at."""
    rig.world.gate.clear()
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x" * 10)
    running = []
    started = fake_datapath.FakeJob.__init__

    def keep(self, run, world):
        running.append(self)
        started(self, run, world)

    monkeypatch.setattr(fake_datapath.FakeJob, "__init__", keep)
    looks = []
    look = fake_datapath.FakeJob.progress
    monkeypatch.setattr(fake_datapath.FakeJob, "progress", lambda self: (looks.append(1), look(self))[1])
    rig.agent(progress_seconds=0.05)
    name = rig.backup(pod)
    wait_for(lambda: (rig.status(PVB, name).get("progress") or {}).get("bytesDone") == 10)
    before = rig.get(PVB, name)["metadata"]["resourceVersion"]
    already = len(looks)
    wait_for(lambda: len(looks) > already + 10)
    assert rig.get(PVB, name)["metadata"]["resourceVersion"] == before
    running[0]._progress.bytes_done = 11
    wait_for(lambda: rig.status(PVB, name)["progress"]["bytesDone"] == 11)
    rig.world.gate.set()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed"


def test_progress_is_written_no_more_often_than_asked(rig, monkeypatch):
    """A job that moves all the time is told once in the agent's period, here one that does not come round."""
    moving = [0]

    def progress(self):
        moving[0] += 1
        return fake_datapath.FakeProgress(bytes_done=moving[0], files_done=moving[0])

    monkeypatch.setattr(fake_datapath.FakeJob, "progress", progress)
    rig.world.gate.clear()
    pod, _path = rig.pod()
    agent = rig.agent(progress_seconds=3600.0)
    name = rig.backup(pod)
    wait_for(lambda: rig.world.running == 1)
    key = f"{NAMESPACE}/{name}"
    controller = agent.agent._controllers[0]
    told = []
    for number in range(5):
        # Each change by somebody else has the object looked at again, maybe before this call is answered.
        before = moving[0]
        rig.client.patch(PVB, name, {"metadata": {"labels": {"n": str(number)}}}, namespace=NAMESPACE)
        wait_for(lambda before=before: moving[0] > before, what=f"{key} is looked at by {controller}")
        # Written, if at all, by the time the next look begins.
        told += [one for one in [rig.status(PVB, name).get("progress")] if one and one not in told]
    assert len(told) <= 1, told
    rig.world.gate.set()
    assert rig.wait_phase(PVB, name)["phase"] == "Completed"


@pytest.mark.parametrize("where", ["pods", "below", "above", "cache"])
def test_location_in_a_folder_of_the_agent_is_refused(rig, where):
    """The agent hands in its own folders: a repository among the pods' volumes would be a tenant's to rewrite."""
    pod, _path = rig.pod()
    cache = rig.folder / "cache"
    cache.mkdir()
    folder = {"pods": rig.pods_root, "below": rig.pods_root / "repo", "above": rig.folder, "cache": cache}[where]
    folder.mkdir(exist_ok=True)
    rig.location("inside", config={"path": str(folder)})
    rig.agent(cache_dir=cache)
    status = rig.done_backup(pod, backupStorageLocation="inside")
    assert status["phase"] == "Failed" and "config.path" in status["message"] and "apart" in status["message"]
    assert rig.world.repositories == {} and rig.done_backup(pod)["phase"] == "Completed"


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_no_credentials_anywhere_fails_and_names_the_places(rig, no_credentials):
    rig.location("bucket", provider="aws", objectStorage={"bucket": "backups"}, config={"region": "eu-west-1"})
    pod, _path = rig.pod()
    rig.agent()
    status = rig.done_backup(pod, backupStorageLocation="bucket")
    assert status["phase"] == "Failed" and "credential" in status["message"] and "spec.credential" in status["message"]
    assert rig.world.calls == []
