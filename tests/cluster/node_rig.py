"""A node's folder, its agents as processes, and the cluster that they serve: what tests of the real node agent stand on.

`Cluster` writes what Velero's server and a kubelet would write; `fill` makes a volume and `tree` says what the kernel says of one, in code that the engine
does not share.
"""

import base64
import hashlib
import itertools
import json
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import boto3
from kubernetes import client

from tests.support import velero_asks
from tests.support.processes import ChildProcess
from tests.support.velero_asks import RESTORE_UID

ROOT = Path(__file__).resolve().parents[2]
NODE = "node-1"
TERMINAL = {"Completed", "Failed", "Canceled"}
# Kubernetes' own lease times, which the command line has, and shorter ones: with those each of twenty kills would cost 15 s of waiting.
LEASE_SECONDS = {"default": 15, "short": 4}
LEASES = {
    "default": "LeaseTimes()",
    "short": f"LeaseTimes(duration_seconds={LEASE_SECONDS['short']}, renew_deadline_seconds=2.5, retry_period_seconds=0.3)",
}
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
    lease_times=LEASE_TIMES), stop))
"""


def wait_for(condition, *, seconds, what):
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} did not come true in {seconds} s"
        time.sleep(0.05)
    return found


def tree(root, *, skip=()):
    """What the kernel says of every entry: kind, mode, owner, times, size, content, links, extended attributes, holes left aside."""
    found, inodes = {}, {}
    for folder, names, files in os.walk(root):
        if folder == str(root):
            names[:] = [name for name in names if name not in (".velero", *skip)]
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
    """One API server with our kinds, a location, a node's folder, and agents on it; after `go_to` another node's."""

    def __init__(self, api_server, namespace, folder, *, location, credentials):
        self.api_server, self.namespace, self.folder = api_server, namespace, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.go_to(NODE)
        self._exit = api_server.client()
        api = self._exit.__enter__()
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.agents = itertools.count(1)
        self.running = []
        self.kept = None
        """The agent that is started again when it has ended by itself, as a kubelet does; None for none."""
        self.ended = 0
        encoded = base64.b64encode(credentials.encode()).decode()
        self.core.create_namespaced_secret(namespace, {"metadata": {"name": "cloud"}, "data": {"keys": encoded}})
        self.create("backupstoragelocations", {"metadata": {"name": "default"}, "spec": location})

    def go_to(self, node):
        """Pods, backups and agents are of this node from now on; it has folders of its own, and what runs on the one before goes on."""
        self.node = node
        self.pods_root, self.cache = self.folder / f"pods-{node}", self.folder / f"cache-{node}"
        self.pods_root.mkdir()

    def close(self):
        for agent in self.running:
            agent.stop()
        self._exit.__exit__(None, None, None)

    def create(self, plural, body):
        full = {"apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", **body}
        return self.custom.create_namespaced_custom_object("velero.io", "v1", self.namespace, plural, full)

    def get(self, plural, name):
        return self.custom.get_namespaced_custom_object("velero.io", "v1", self.namespace, plural, name)

    def status(self, plural, name):
        return self.get(plural, name).get("status") or {}

    def wait_phase(self, plural, name, *phases, seconds=120.0):
        wanted = set(phases) or TERMINAL

        def look():
            if self.kept is not None and not self.kept.alive:
                # An agent whose jobs outlive its lease ends itself; slow machines see that.
                self.kept.stop()
                self.ended += 1
                self.kept = self.agent()
            status = self.status(plural, name)
            return status if status.get("phase") in wanted else None

        try:
            return wait_for(look, seconds=seconds, what=f"{plural}/{name} {wanted}")
        except AssertionError as err:
            told = self.logs()[-20_000:]
            raise AssertionError(f"{err}: object={json.dumps(self.get(plural, name))}, logs:\n{told}") from err

    def pod(self, name, *, waits=False, user=None, claim=None):
        one = {"name": "restore-wait", "image": "w", "args": [RESTORE_UID]}
        if user is not None:
            one["securityContext"] = {"runAsUser": user}
        source = {"emptyDir": {}} if claim is None else {"persistentVolumeClaim": {"claimName": claim}}
        spec = {
            "nodeName": self.node,
            "containers": [{"name": "db", "image": "db"}],
            "volumes": [{"name": "data", **source}],
            **({"initContainers": [one]} if waits else {}),
        }
        made = self.core.create_namespaced_pod(self.namespace, {"metadata": {"name": name}, "spec": spec})
        if waits:
            self.container(name, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
        below = "kubernetes.io~empty-dir/data" if claim is None else f"kubernetes.io~csi/{self.namespace}-{claim}/mount"
        path = self.pods_root / made.metadata.uid / "volumes" / below
        path.mkdir(parents=True)
        return made.metadata.uid, path

    def claim(self, name):
        """A claim with its volume, as a CSI driver makes them; no pod has it yet."""
        size, modes = {"storage": "1Gi"}, ["ReadWriteOnce"]
        volume = f"{self.namespace}-{name}"
        spec = {"accessModes": modes, "resources": {"requests": size}, "volumeName": volume, "storageClassName": ""}
        self.core.create_namespaced_persistent_volume_claim(self.namespace, {"metadata": {"name": name}, "spec": spec})
        csi = {"driver": "csi.example.com", "volumeHandle": volume}
        body = {"metadata": {"name": volume}, "spec": {"capacity": size, "accessModes": modes, "csi": csi}}
        self.core.create_persistent_volume(body)

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
        whose = {"namespace": self.namespace, "name": pod, "uid": uid}
        self.create(
            "podvolumebackups", velero_asks.backup(name, whose, **{"volume": "data", "node": self.node, **spec})
        )

    def restore(self, name, pod, uid, snapshot, *, source=None, annotations=None):
        whose = {"namespace": self.namespace, "name": pod, "uid": uid}
        body = velero_asks.restore(
            name, whose, volume="data", snapshot=snapshot, source=source, annotations=annotations
        )
        self.create("podvolumerestores", body)

    def agent(self, *argv, lease="short", environment=None):
        number = next(self.agents)
        environment = {
            "PYTHONPATH": str(ROOT / "python"),
            "HOME": str(self.folder),
            "AWS_EC2_METADATA_DISABLED": "true",
            **(environment or {}),
        }
        words = argv or (
            "-c",
            AGENT.replace("LEASE_TIMES", LEASES[lease]).replace(NODE, self.node),
            self.api_server.kubeconfig,
            self.namespace,
            self.pods_root,
            self.cache,
        )
        started = ChildProcess(
            f"agent-{number}", [sys.executable, *words], log_path=self.folder / f"agent-{number}.log", env=environment
        )
        self.running.append(started)
        return started

    def get_lease(self):
        with self.api_server.client() as api:
            return client.CoordinationV1Api(api).read_namespaced_lease(
                f"longshore-node-agent-{self.node}", self.namespace
            )

    def logs(self):
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("agent-*.log")))


def location_of(s3, bucket, *, prefix="velero"):
    return {
        "provider": "aws",
        "objectStorage": {"bucket": bucket, "prefix": prefix},
        "config": {"region": s3.region, "s3Url": s3.endpoint_url, "s3ForcePathStyle": "true"},
        "credential": {"name": "cloud", "key": "keys"},
    }


def credentials_of(s3):
    return f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"


def _keys_of_store(cluster):
    secret = cluster.core.read_namespaced_secret("cloud", cluster.namespace)
    lines = base64.b64decode(secret.data["keys"]).decode().splitlines()
    return (line.partition(" = ")[2] for line in lines[1:3])


def keys_in_store(cluster):
    location = cluster.get("backupstoragelocations", "default")["spec"]
    access, key = _keys_of_store(cluster)
    s3 = boto3.client(
        "s3",
        endpoint_url=location["config"]["s3Url"],
        region_name=location["config"]["region"],
        aws_access_key_id=access,
        aws_secret_access_key=key,
    )
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=location["objectStorage"]["bucket"])
    return [one["Key"] for page in pages for one in page.get("Contents", ())]


def visible_snapshots(cluster, *, endpoint_url=None):
    """Snapshots as `longshore volume list` shows them with the cluster's key, oldest first: their tags, and `snapshotID`.

    What attempts that were ended left behind lies under `snapshots/` too and is not among them. `endpoint_url` is the store's own where the location names a
    proxy that would be in the way.
    """
    location = cluster.get("backupstoragelocations", "default")["spec"]
    access, key = _keys_of_store(cluster)
    held = cluster.core.read_namespaced_secret("longshore-repo-credentials", cluster.namespace)
    key_path = cluster.folder / "root.key"
    key_path.touch(mode=0o600)
    key_path.write_bytes(base64.b64decode(held.data["repository-key"]))
    storage = location["objectStorage"]
    url = f"s3://{storage['bucket']}/{storage['prefix']}/plugins/longshore/{cluster.namespace}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint_url or location["config"]["s3Url"],
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_REGION": location["config"]["region"],
    }
    words = ("volume", "list", "--repository", url, "--key-file", key_path, "--json")
    told = run_command(*words, folder=cluster.folder, environment=environment)
    assert told.returncode == 0, told
    rows = [row for row in map(json.loads, told.stdout.splitlines()) if row["type"] == "row"]
    return [{**dict(row["tags"]), "snapshotID": row["snapshot_id"]} for row in rows]


def run_command(*words, folder, environment=None):
    """Run the command, with a home in this folder; gives the process."""
    main = "import sys; from longshore.cli.main import main; sys.exit(main())"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "python"),
        "HOME": str(folder),
        "AWS_EC2_METADATA_DISABLED": "true",
        **(environment or {}),
    }
    command = [sys.executable, "-c", main, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def longshore(cluster, *words):
    """Run the command on a cluster, as its administrator; gives the process."""
    where = ["--kubeconfig", str(cluster.api_server.kubeconfig), "--namespace", cluster.namespace]
    return run_command(*words, *where, folder=cluster.folder)
