"""A real node agent process between a real API server and a real S3 server: out and back, killed at random moments, stopped, cut off, and in a second cluster.

The trees are compared by what the kernel says of them, in code that the engine does not share.
"""

import base64
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import stat
import sys
import time
import uuid
from pathlib import Path

import pytest
from kubernetes import client

from tests.support.components import require_tool
from tests.support.processes import ChildProcess

ROOT = Path(__file__).resolve().parents[2]
NODE = "node-1"
TERMINAL = {"Completed", "Failed", "Canceled"}
RESTORE_UID = "5f0e4d8a-4a0b-4f6f-9b0e-restore00001"
# The command line has Kubernetes' own lease times; with them each of twenty kills would cost 15 s of waiting.
AGENT = """
import signal, sys, threading
from pathlib import Path
from longshore import logs
from longshore.kube.leases import LeaseTimes
from longshore.node_agent import AgentSettings, run
logs.configure(level="info")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
kubeconfig, namespace, pods, cache = sys.argv[1:]
sys.exit(run(AgentSettings(node_name="node-1", namespace=namespace, kubeconfig=kubeconfig, host_pods_root=Path(pods), cache_dir=Path(cache),
    metrics_address="127.0.0.1:0", memory_limit_bytes=256 << 20, progress_seconds=0.2, grace_seconds=10.0,
    lease_times=LeaseTimes(duration_seconds=4, renew_deadline_seconds=2.5, retry_period_seconds=0.3)), stop))
"""


def wait_for(condition, *, seconds, what):
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} did not come true in {seconds} s"
        time.sleep(0.05)
    return found


def tree(root):
    """What the kernel says of every entry: kind, mode, owner, times, size, content, links, extended attributes, holes left aside."""
    found, inodes = {}, {}
    for folder, names, files in os.walk(root):
        if folder == str(root):
            names[:] = [name for name in names if name != ".velero"]
        for path in [folder, *(os.path.join(folder, name) for name in files)] + [
            os.path.join(folder, name) for name in names if os.path.islink(os.path.join(folder, name))
        ]:
            status = os.lstat(path)
            name = os.path.relpath(path, root)
            content = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                inodes.setdefault(status.st_ino, []).append(name)
            attributes = {
                one: os.getxattr(path, one, follow_symlinks=False) for one in os.listxattr(path, follow_symlinks=False)
            }
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, content, attributes)
    return found, sorted(sorted(names) for names in inodes.values() if len(names) > 1)


def fill(path, *, seed, megabytes=24, files=300):
    """Make a volume: random and compressible data, many small files, odd names, links, holes, modes, times, attributes."""
    chance = random.Random(seed)
    for number in range(files):
        one = path / f"d{number % 17}" / f"f{number}"
        one.parent.mkdir(exist_ok=True)
        one.write_bytes(chance.randbytes(chance.randrange(0, 20_000)))
        one.chmod(chance.choice([0o600, 0o644, 0o755, 0o400]))
        os.utime(one, ns=(chance.randrange(10**18), chance.randrange(10**18)))
    for number in range(megabytes // 8):
        (path / f"big{number}").write_bytes(chance.randbytes(8 << 20))
    (path / "text").write_bytes(b"the same line again\n" * 100_000)
    os.link(path / "text", path / "hard")
    os.symlink("../../../etc/passwd", path / "link")
    with open(path / "sparse", "wb") as sparse:
        sparse.truncate(50 << 20)
        sparse.seek(20 << 20)
        sparse.write(b"middle")
    odd = os.fsencode(path) + b"/odd \xff\n'name"
    with open(odd, "wb") as file:
        file.write(b"odd")
    os.setxattr(path / "text", "user.note", b"kept")
    (path / "empty").mkdir()
    path.chmod(0o750)
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))


class Cluster:
    """One API server with our kinds, a location, a node's folder, and agents on it."""

    def __init__(self, api_server, namespace, folder, *, location, credentials):
        self.api_server, self.namespace, self.folder = api_server, namespace, folder
        self.pods_root, self.cache = folder / "pods", folder / "cache"
        self.pods_root.mkdir(parents=True)
        self._exit = api_server.client()
        api = self._exit.__enter__()
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.agents = itertools.count(1)
        self.running = []
        encoded = base64.b64encode(credentials.encode()).decode()
        self.core.create_namespaced_secret(namespace, {"metadata": {"name": "cloud"}, "data": {"keys": encoded}})
        self.create("backupstoragelocations", {"metadata": {"name": "default"}, "spec": location})

    def close(self):
        for agent in self.running:
            agent.stop()
        self._exit.__exit__(None, None, None)

    def create(self, plural, body):
        kinds = {"backupstoragelocations": "BackupStorageLocation", "podvolumebackups": "PodVolumeBackup"}
        full = {"apiVersion": "velero.io/v1", "kind": kinds.get(plural, "PodVolumeRestore"), **body}
        return self.custom.create_namespaced_custom_object("velero.io", "v1", self.namespace, plural, full)

    def get(self, plural, name):
        return self.custom.get_namespaced_custom_object("velero.io", "v1", self.namespace, plural, name)

    def status(self, plural, name):
        return self.get(plural, name).get("status") or {}

    def wait_phase(self, plural, name, *phases, seconds=120.0):
        wanted = set(phases) or TERMINAL

        def look():
            status = self.status(plural, name)
            return status if status.get("phase") in wanted else None

        return wait_for(look, seconds=seconds, what=f"{plural}/{name} {wanted}")

    def pod(self, name, *, waits=False, user=None):
        one = {"name": "restore-wait", "image": "w", "args": [RESTORE_UID]}
        if user is not None:
            one["securityContext"] = {"runAsUser": user}
        spec = {
            "nodeName": NODE,
            "containers": [{"name": "db", "image": "db"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            **({"initContainers": [one]} if waits else {}),
        }
        made = self.core.create_namespaced_pod(self.namespace, {"metadata": {"name": name}, "spec": spec})
        if waits:
            self.container(name, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
        path = self.pods_root / made.metadata.uid / "volumes" / "kubernetes.io~empty-dir" / "data"
        path.mkdir(parents=True)
        return made.metadata.uid, path

    def container(self, name, state):
        status = {
            "name": "restore-wait",
            "image": "w",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        body = {"status": {"phase": "Pending", "initContainerStatuses": [status]}}
        self.core.patch_namespaced_pod_status(name, self.namespace, body)

    def backup(self, name, pod, uid, **spec):
        body = {
            "node": NODE,
            "pod": {"kind": "Pod", "namespace": self.namespace, "name": pod, "uid": uid},
            "volume": "data",
            "backupStorageLocation": "default",
            "repoIdentifier": "",
            "uploaderType": "kopia",
            "tags": {"backup": "nightly", "volume": "data"},
            **spec,
        }
        self.create("podvolumebackups", {"metadata": {"name": name}, "spec": body})

    def restore(self, name, pod, uid, snapshot, *, source=None):
        owner = {"apiVersion": "velero.io/v1", "kind": "Restore", "name": "r", "uid": RESTORE_UID, "controller": True}
        body = {
            "pod": {"kind": "Pod", "namespace": self.namespace, "name": pod, "uid": uid},
            "volume": "data",
            "backupStorageLocation": "default",
            "repoIdentifier": "",
            "snapshotID": snapshot,
            "sourceNamespace": source or self.namespace,
            "uploaderType": "kopia",
        }
        self.create("podvolumerestores", {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": body})

    def agent(self, *argv):
        number = next(self.agents)
        environment = {
            "PYTHONPATH": str(ROOT / "python"),
            "HOME": str(self.folder),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        words = argv or ("-c", AGENT, self.api_server.kubeconfig, self.namespace, self.pods_root, self.cache)
        started = ChildProcess(
            f"agent-{number}", [sys.executable, *words], log_path=self.folder / f"agent-{number}.log", env=environment
        )
        self.running.append(started)
        return started

    def logs(self):
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("agent-*.log")))


@pytest.fixture
def crds(api_server, kubectl):
    kubectl("apply", "--server-side", "-f", str(ROOT / "daemonset" / "crds"))
    return api_server


def location_of(s3, bucket, *, prefix="velero"):
    return {
        "provider": "aws",
        "objectStorage": {"bucket": bucket, "prefix": prefix},
        "config": {"region": s3.region, "s3Url": s3.endpoint_url, "s3ForcePathStyle": "true"},
        "credential": {"name": "cloud", "key": "keys"},
    }


def credentials_of(s3):
    return f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"


@pytest.fixture
def cluster(crds, namespace, s3_server, bucket, tmp_path):
    made = Cluster(
        crds,
        namespace,
        tmp_path / "node",
        location=location_of(s3_server, bucket),
        credentials=credentials_of(s3_server),
    )
    yield made
    made.close()


def test_out_and_back(cluster, s3_server, bucket):
    uid, path = cluster.pod("db-0")
    fill(path, seed=1)
    (path / ".velero").mkdir()
    (path / ".velero" / "stale").touch()
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))
    expected = tree(path)
    cluster.backup("out", "db-0", uid)
    cluster.agent()
    seen = set()

    def ended():
        seen.add(cluster.status("podvolumebackups", "out").get("phase", "New"))
        return seen & TERMINAL

    wait_for(ended, seconds=120, what="the backup ends")
    status = cluster.status("podvolumebackups", "out")
    assert status["phase"] == "Completed", (status, cluster.logs())
    assert "InProgress" in seen
    assert status["snapshotID"].startswith("ls0-") and status["path"] == str(path) and status["node"] == NODE
    assert status["progress"]["bytesDone"] == status["progress"]["totalBytes"] > 24 << 20
    assert status["startTimestamp"] <= status["completionTimestamp"]
    keys = [one["Key"] for one in s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys and all(key.startswith(f"velero/plugins/longshore/{cluster.namespace}/") for key in keys)
    # Unchanged: nothing is read again.
    cluster.backup("again", "db-0", uid)
    again = cluster.wait_phase("podvolumebackups", "again")
    assert again["phase"] == "Completed" and again["incrementalBytes"] == 0, again
    back, target = cluster.pod("back-0", waits=True, user=os.geteuid())
    (target / ".velero").mkdir()
    (target / ".velero" / RESTORE_UID).write_text("from before")
    cluster.restore("in", "back-0", back, status["snapshotID"])
    status = cluster.wait_phase("podvolumerestores", "in")
    assert status["phase"] == "Completed", (status, cluster.logs())
    assert tree(target) == expected
    assert os.listdir(target / ".velero") == [RESTORE_UID]


def test_root_of_another_user(cluster):
    uid, path = cluster.pod("db-0")
    (path / "a").write_text("x")
    if os.geteuid() == 0:
        os.chown(path, 999, 999)
    path.chmod(0o700)
    cluster.agent()
    cluster.backup("out", "db-0", uid)
    snapshot = cluster.wait_phase("podvolumebackups", "out")["snapshotID"]
    back, target = cluster.pod("back-0", waits=True, user=1000 if os.geteuid() != 1000 else 1001)
    cluster.restore("in", "back-0", back, snapshot)
    status = cluster.wait_phase("podvolumerestores", "in")
    assert status["phase"] == "Completed" and "o+x" in status["message"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o701 and target.stat().st_uid == path.stat().st_uid
    cluster.container("back-0", {"terminated": {"exitCode": 0}})
    wait_for(lambda: stat.S_IMODE(target.stat().st_mode) == 0o700, seconds=60, what="the root has its true mode")


@pytest.mark.timeout(900)  # 160 s on two idle cores, most of it twenty starts and lapses of the lease
def test_killed_at_twenty_random_moments(cluster):
    """After each kill the agent comes back; 60 s after the last every object has ended, and what is Completed restores."""
    chance = random.Random(20)
    uid, path = cluster.pod("db-0")
    fill(path, seed=2)
    expected = tree(path)
    cluster.backup("first", "db-0", uid)
    agent = cluster.agent()
    snapshot = cluster.wait_phase("podvolumebackups", "first")["snapshotID"]
    backups, restores = ["first"], {}
    for moment in range(20):
        if moment % 3 == 2:
            name = f"in-{moment}"
            back, target = cluster.pod(f"back-{moment}", waits=True, user=os.geteuid())
            cluster.restore(name, f"back-{moment}", back, snapshot)
            restores[name] = target
        else:
            fresh = path / "changing"
            fresh.write_bytes(chance.randbytes(6 << 20))
            name = f"out-{moment}"
            cluster.backup(name, "db-0", uid, parentSnapshot="none")
            backups.append(name)
        plural = "podvolumerestores" if name in restores else "podvolumebackups"
        cluster.wait_phase(plural, name, "InProgress", *TERMINAL, seconds=60)
        time.sleep(chance.uniform(0.0, 1.2))
        os.kill(agent.pid, signal.SIGKILL)
        agent.stop()
        agent = cluster.agent()
    came_back = time.monotonic()
    everything = [("podvolumebackups", name) for name in backups] + [("podvolumerestores", name) for name in restores]
    endings = {}
    for plural, name in everything:
        left = max(1.0, came_back + 60.0 - time.monotonic())
        endings[plural, name] = cluster.wait_phase(plural, name, seconds=left)
    assert {status["phase"] for status in endings.values()} == {"Completed"}, endings
    assert len({endings["podvolumebackups", name]["snapshotID"] for name in backups}) == len(backups)
    for name, target in restores.items():
        assert tree(target) == expected, name
        assert (target / ".velero" / RESTORE_UID).is_file()
    (path / "changing").unlink()
    for number, name in enumerate(backups):
        back, target = cluster.pod(f"check-{number}", waits=True, user=os.geteuid())
        cluster.restore(f"check-{number}", f"check-{number}", back, endings["podvolumebackups", name]["snapshotID"])
        assert cluster.wait_phase("podvolumerestores", f"check-{number}")["phase"] == "Completed"
        entries, _links = tree(target)
        changing = entries.pop("changing", None)
        assert (changing is None) == (name == "first")
        known = {entry: expected[0][entry] for entry in expected[0] if entry != "."}
        assert {entry: found for entry, found in entries.items() if entry != "."} == known
        shutil.rmtree(target)
    # One visible snapshot for each object, however often it was begun.
    keys = [key for key in _keys(cluster) if "/snapshots/" in key]
    assert len(keys) >= len(backups)


def _keys(cluster):
    location = cluster.get("backupstoragelocations", "default")["spec"]
    import boto3

    secret = cluster.core.read_namespaced_secret("cloud", cluster.namespace)
    lines = base64.b64decode(secret.data["keys"]).decode().splitlines()
    access, key = (line.partition(" = ")[2] for line in lines[1:3])
    s3 = boto3.client(
        "s3",
        endpoint_url=location["config"]["s3Url"],
        region_name=location["config"]["region"],
        aws_access_key_id=access,
        aws_secret_access_key=key,
    )
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=location["objectStorage"]["bucket"])
    return [one["Key"] for page in pages for one in page.get("Contents", ())]


def test_stopped_in_order(cluster):
    uid, path = cluster.pod("db-0")
    fill(path, seed=3, megabytes=120)
    cluster.backup("out", "db-0", uid)
    agent = cluster.agent()
    cluster.wait_phase("podvolumebackups", "out", "InProgress")
    os.kill(agent.pid, signal.SIGTERM)
    wait_for(lambda: not agent.alive, seconds=30, what="the agent ends")
    agent.stop()
    assert cluster.status("podvolumebackups", "out")["phase"] in {"InProgress", "Completed"}
    cluster.agent()
    assert cluster.wait_phase("podvolumebackups", "out")["phase"] == "Completed"


def test_outage_of_the_store(crds, namespace, own_s3_server, tmp_path):
    bucket = own_s3_server.bucket(f"test-{uuid.uuid4().hex[:12]}")
    cluster = Cluster(
        crds,
        namespace,
        tmp_path / "node",
        location=location_of(own_s3_server, bucket),
        credentials=credentials_of(own_s3_server),
    )
    try:
        uid, path = cluster.pod("db-0")
        fill(path, seed=4, megabytes=8)
        own_s3_server.halt()
        cluster.backup("out", "db-0", uid)
        cluster.agent()
        wait_for(
            lambda: "waiting" in cluster.status("podvolumebackups", "out").get("message", ""),
            seconds=120,
            what="the message tells of the outage",
        )
        assert cluster.status("podvolumebackups", "out")["phase"] == "InProgress"
        own_s3_server.start()
        status = cluster.wait_phase("podvolumebackups", "out", seconds=180)
        assert status["phase"] == "Completed" and not status.get("message"), status
    finally:
        cluster.close()


def test_second_cluster_with_the_exported_key(cluster, own_api_server, s3_server, bucket, tmp_path):
    uid, path = cluster.pod("db-0")
    fill(path, seed=5, megabytes=8)
    expected = tree(path)
    cluster.backup("out", "db-0", uid)
    cluster.agent()
    snapshot = cluster.wait_phase("podvolumebackups", "out")["snapshotID"]
    exported = cluster.core.read_namespaced_secret("longshore-repo-credentials", cluster.namespace).data[
        "repository-key"
    ]
    own_api_server.kubectl("apply", "--server-side", "-f", str(ROOT / "daemonset" / "crds"))
    own_api_server.kubectl("create", "namespace", "rescue")
    second = Cluster(
        own_api_server,
        "rescue",
        tmp_path / "second",
        location=location_of(s3_server, bucket),
        credentials=credentials_of(s3_server),
    )
    try:
        back, target = second.pod("back-0", waits=True, user=os.geteuid())
        second.agent()
        second.restore("too-early", "back-0", back, snapshot, source=cluster.namespace)
        status = second.wait_phase("podvolumerestores", "too-early")
        assert status["phase"] == "Failed" and "made with another key" in status["message"], status
        body = {"metadata": {"name": "longshore-repo-credentials"}, "data": {"repository-key": exported}}
        second.core.create_namespaced_secret("rescue", body)
        second.restore("in", "back-0", back, snapshot, source=cluster.namespace)
        status = second.wait_phase("podvolumerestores", "in")
        assert status["phase"] == "Completed", (status, second.logs())
        assert tree(target) == expected
    finally:
        second.close()


def test_command_line_starts_the_agent_as_veleros_daemonset_does(cluster):
    require_tool("kube-apiserver")
    uid, path = cluster.pod("db-0")
    (path / "a").write_text("x")
    cluster.backup("out", "db-0", uid)
    main = "import sys; from longshore.cli.main import main; sys.exit(main())"
    words = ["-c", main, "node-agent", "server", f"--kubeconfig={cluster.api_server.kubeconfig}"]
    words += [f"--namespace={cluster.namespace}", f"--node-name={NODE}", f"--host-pods-root={cluster.pods_root}"]
    agent = cluster.agent(*words, "--metrics-address=127.0.0.1:0", f"--cache-dir={cluster.cache}")
    assert cluster.wait_phase("podvolumebackups", "out")["phase"] == "Completed", cluster.logs()
    os.kill(agent.pid, signal.SIGTERM)
    wait_for(lambda: not agent.alive, seconds=30, what="the agent ends")
    secret = cluster.core.read_namespaced_secret("longshore-repo-credentials", cluster.namespace)
    digits = base64.b64decode(secret.data["repository-key"]).decode().strip().removeprefix("longshore-key-1:")
    access = base64.b64decode(cluster.core.read_namespaced_secret("cloud", cluster.namespace).data["keys"]).decode()
    everything = cluster.logs() + json.dumps(cluster.get("podvolumebackups", "out"))
    assert len(digits) == 64 and digits not in everything
    assert access.splitlines()[2].partition(" = ")[2] not in everything
