"""A cluster in small: an API server with our custom resources, one node with its agent, and a kubelet's part played by the demo.

No kubelet runs here, so :class:`Cluster` does what one would: it lays out a pod's volume where the agent looks for it, writes the pod's status, and ends
the waiting container when the agent has told it to go on.

Promises: the API server is the embedded one, or the real kube-apiserver with etcd; everything after that is the same for both, through the same client.
The agent is the command that a DaemonSet runs, as a process of its own. Leaving the context ends both.

Does not know: what is in a volume.
"""

from __future__ import annotations

import base64
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.components import ApiServer
from tests.support.processes import ChildProcess, ReservedPort

from longshore.api.names import (
    ANNOTATION_PVC_NAME,
    DEFINITIONS,
    LABEL_BACKUP_NAME,
    LABEL_PVC_UID,
    LABEL_RESTORE_UID,
    POD_VOLUME_BACKUPS,
    POD_VOLUME_RESTORES,
)
from longshore.controllers.cluster import resource_of
from longshore.controllers.repository_keys import KEY_ROOT, SECRET_ROOT
from longshore.errors import NotFoundError
from longshore.kube.client import KubeClient
from longshore.kube.fake import FakeApiServer
from longshore.kube.resource import (
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    JsonObject,
    Resource,
)
from scripts.demo.folder import DemoError

__all__ = ["APP_NAMESPACE", "LOCATION", "Cluster", "Pod", "running_cluster"]

ROOT = Path(__file__).resolve().parents[2]
VELERO_NAMESPACE = "velero"
APP_NAMESPACE = "shop"
LOCATION = "default"
NODE = "node-1"
VOLUME = "data"
DRIVER = "disk.csi.example.com"
PVBS = resource_of(POD_VOLUME_BACKUPS)
PVRS = resource_of(POD_VOLUME_RESTORES)
LOCATIONS = Resource("velero.io", "v1", "backupstoragelocations", "BackupStorageLocation")
_READY_SECONDS = 60.0
_IMAGE = "registry.example.com/database:1"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was made: its name and uid, where its volume lies on the node, and name and uid of the volume's claim."""

    name: str
    uid: str
    volume: Path
    claim: str
    claim_uid: str


class Cluster:
    """One API server and one node."""

    def __init__(self, client: KubeClient, *, folder: Path, kubeconfig: Path, server: str) -> None:
        """Take hold of a server that runs; see `running_cluster`."""
        self.client = client
        self.folder = folder
        self.server = server
        """What the server says it is."""
        self.agent_port = 0
        """Where the agent serves its metrics, while one runs."""
        self._kubeconfig = kubeconfig
        self._pods_root = folder / "pods"
        self._pods_root.mkdir(mode=0o755)

    # -- what an administrator does --------------------------------------------------------------------------------------------

    def install(self, store: Path) -> None:
        """Make Velero's namespace with a storage location, and the application's."""
        for name in (VELERO_NAMESPACE, APP_NAMESPACE):
            self.client.create(NAMESPACES, {"metadata": {"name": name}})
        self.client.create(
            LOCATIONS,
            {
                "metadata": {"name": LOCATION, "namespace": VELERO_NAMESPACE},
                "spec": {
                    "provider": "filesystem",
                    "default": True,
                    "objectStorage": {"bucket": ""},
                    "config": {"path": str(store)},
                },
            },
        )

    def root_key(self) -> bytes:
        """Read the key that the agent made, as `kubectl get secret` would."""
        secret = self.client.get(SECRETS, SECRET_ROOT, namespace=VELERO_NAMESPACE)
        return base64.b64decode(secret["data"][KEY_ROOT])

    def lay_down_key(self, content: bytes) -> None:
        """Put a key there before any agent looks for one."""
        self.client.create(
            SECRETS,
            {
                "metadata": {"name": SECRET_ROOT, "namespace": VELERO_NAMESPACE},
                "type": "Opaque",
                "data": {KEY_ROOT: base64.b64encode(content).decode()},
            },
        )

    @contextmanager
    def agent(self) -> Iterator[float]:
        """Run a node agent, ready when the context is entered; gives the seconds that took."""
        started = time.monotonic()
        options = (
            f"--node-name={NODE}",
            f"--host-pods-root={self._pods_root}",
            f"--cache-dir={self.folder / 'cache'}",
        )
        with self._running("node-agent", options) as (child, port):
            self._agent = child
            self.agent_port = port
            yield time.monotonic() - started

    @contextmanager
    def longshore_server(self, *options: str) -> Iterator[int]:
        """Run `longshore server`, ready when the context is entered; gives the port of its metrics."""
        with self._running("server", (f"--cache-dir={self.folder / 'server-cache'}", *options)) as (_, port):
            yield port

    @contextmanager
    def _running(self, command: str, options: Sequence[str]) -> Iterator[tuple[ChildProcess, int]]:
        port = ReservedPort()
        line = [
            # Beside the interpreter that runs this: the command of the same environment.
            str(Path(sys.executable).with_name("longshore")),
            command,
            f"--kubeconfig={self._kubeconfig}",
            f"--namespace={VELERO_NAMESPACE}",
            f"--metrics-address=127.0.0.1:{port.number}",
            "--log-format=json",
            "--log-level=info",
            *options,
        ]
        env = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        child = ChildProcess(f"longshore {command}", line, log_path=self.folder / f"{command}.log", env=env)
        try:
            child.wait_ready(lambda: _not_ready(port.number), timeout_seconds=_READY_SECONDS)
            yield child, port.number
        finally:
            child.stop(grace_seconds=10.0)
            port.close()

    # -- what scheduler and kubelet do -------------------------------------------------------------------------------------------

    def start_pod(self, name: str, *, restore_wait: bool, claim: str) -> Pod:
        """Make a pod with a volume of its own, and let it run, or wait for its volume to be filled.

        Args:
            restore_wait: with the init container that Velero's restore adds.
            claim: name of its PVC, made when it is not there.
        """
        bound, claim_uid = self._claim(claim)
        waiting = [{"name": "restore-wait", "image": _IMAGE}] if restore_wait else []
        made = self.client.create(
            PODS,
            {
                "metadata": {"name": name, "namespace": APP_NAMESPACE},
                "spec": {
                    "nodeName": NODE,
                    "initContainers": waiting,
                    "containers": [
                        {"name": "database", "image": _IMAGE, "volumeMounts": [{"name": VOLUME, "mountPath": "/data"}]}
                    ],
                    "volumes": [{"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}}],
                },
            },
        )
        uid = str(made["metadata"]["uid"])
        folder = self._pods_root / uid / "volumes" / "kubernetes.io~csi" / bound
        folder.mkdir(parents=True, mode=0o755)
        state: JsonObject = {"running": {"startedAt": _now()}}
        status: JsonObject = {"phase": "Pending" if restore_wait else "Running"}
        if restore_wait:
            status["initContainerStatuses"] = [_container("restore-wait", state)]
        self.client.patch(PODS, name, {"status": status}, namespace=APP_NAMESPACE, subresource="status")
        return Pod(name, uid, folder / "mount", claim, claim_uid)

    def lose_pod(self, pod: Pod, *, keep_as: Path) -> None:
        """Delete a pod with its volume; what was on it is moved aside, for the comparison alone."""
        self.client.delete(PODS, pod.name, namespace=APP_NAMESPACE, grace_period_seconds=0)
        pod.volume.rename(keep_as)

    def let_pod_go_on(self, pod: Pod, restore_uid: str) -> None:
        """Do what the waiting container does: see the done-file, remove `.velero`, and end; then the pod runs.

        Raises:
            DemoError: there is no done-file.
        """
        done = pod.volume / ".velero" / restore_uid
        if not done.is_file():
            raise DemoError(f"the agent completed the restore without the done-file: {done}")
        before = pod.volume.stat()
        done.unlink()
        done.parent.rmdir()
        # Taking a name out of the root moves its mtime, as it does in a cluster; put back, so that the root is compared as the agent left it.
        os.utime(pod.volume, ns=(before.st_atime_ns, before.st_mtime_ns))
        ended = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": _now()}}
        status = {"phase": "Running", "initContainerStatuses": [_container("restore-wait", ended)]}
        self.client.patch(PODS, pod.name, {"status": status}, namespace=APP_NAMESPACE, subresource="status")

    def _claim(self, name: str) -> tuple[str, str]:
        """Make a PVC that is bound to a PV, unless it is there; gives the PV's name and the PVC's uid."""
        try:
            found = self.client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace=APP_NAMESPACE)
            return str(found["spec"]["volumeName"]), str(found["metadata"]["uid"])
        except NotFoundError:
            pass
        volume = f"pv-{name}"
        size: JsonObject = {"storage": "10Gi"}
        self.client.create(
            PERSISTENT_VOLUMES,
            {
                "metadata": {"name": volume},
                "spec": {
                    "capacity": size,
                    "accessModes": ["ReadWriteOnce"],
                    "csi": {"driver": DRIVER, "volumeHandle": volume},
                    "claimRef": {"namespace": APP_NAMESPACE, "name": name},
                },
            },
        )
        made = self.client.create(
            PERSISTENT_VOLUME_CLAIMS,
            {
                "metadata": {"name": name, "namespace": APP_NAMESPACE},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": size},
                    "volumeName": volume,
                    "storageClassName": "",
                },
            },
        )
        return volume, str(made["metadata"]["uid"])

    # -- what Velero's server does -----------------------------------------------------------------------------------------------

    def back_up(self, name: str, pod: Pod) -> None:
        """Write a PodVolumeBackup, as Velero's server does for `velero backup create`."""
        self.client.create(
            PVBS,
            {
                "metadata": {
                    "name": name,
                    "namespace": VELERO_NAMESPACE,
                    "labels": {LABEL_BACKUP_NAME: name, LABEL_PVC_UID: pod.claim_uid},
                    "annotations": {ANNOTATION_PVC_NAME: pod.claim},
                },
                "spec": {
                    "node": NODE,
                    "pod": {"kind": "Pod", "namespace": APP_NAMESPACE, "name": pod.name, "uid": pod.uid},
                    "volume": VOLUME,
                    "backupStorageLocation": LOCATION,
                    "repoIdentifier": "",
                    "uploaderType": "kopia",
                    "tags": {"backup": name, "ns": APP_NAMESPACE, "pod": pod.name, "volume": VOLUME},
                },
            },
        )

    def restore(self, name: str, pod: Pod, *, snapshot_id: str, restore_uid: str) -> None:
        """Write a PodVolumeRestore, as Velero's server does for `velero restore create`."""
        self.client.create(
            PVRS,
            {
                "metadata": {"name": name, "namespace": VELERO_NAMESPACE, "labels": {LABEL_RESTORE_UID: restore_uid}},
                "spec": {
                    "pod": {"kind": "Pod", "namespace": APP_NAMESPACE, "name": pod.name, "uid": pod.uid},
                    "volume": VOLUME,
                    "backupStorageLocation": LOCATION,
                    "repoIdentifier": "",
                    "uploaderType": "kopia",
                    "snapshotID": snapshot_id,
                    "sourceNamespace": APP_NAMESPACE,
                },
            },
        )

    def look(self, resource: Resource, name: str) -> JsonObject:
        """Read an object as it is now.

        Raises:
            ComponentFailedError: the agent is dead, so nothing would come of waiting.
        """
        self._agent.check_alive()
        return self.client.get(resource, name, namespace=VELERO_NAMESPACE)


@contextmanager
def running_cluster(folder: Path, *, real: bool) -> Iterator[Cluster]:
    """Run an API server with our custom resources and nothing else in it.

    Args:
        folder: its own; made here, and kept for its logs.
        real: kube-apiserver and etcd instead of the embedded one.
    """
    folder.mkdir(mode=0o700)
    definitions = ROOT / "daemonset" / "crds"
    with ExitStack() as stack:
        if real:
            api = stack.enter_context(ApiServer())
            api.kubectl("apply", "--server-side", "-f", str(definitions))
            kubeconfig = folder / "kubeconfig"
            kubeconfig.write_bytes(api.kubeconfig.read_bytes())
            kubeconfig.chmod(0o600)
            names = [f"crd/{one.crd_name}" for one in DEFINITIONS]
            api.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
            client = stack.enter_context(KubeClient.from_kubeconfig(kubeconfig))
            server = f"kube-apiserver {client.version()['gitVersion']} with etcd"
        else:
            fake = stack.enter_context(FakeApiServer(kubeconfig_path=folder / "kubeconfig"))
            client = stack.enter_context(KubeClient.from_kubeconfig(fake.kubeconfig_path))
            for path in sorted(definitions.glob("*.yaml")):
                client.create(CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load(path.read_text(encoding="utf-8")))
            kubeconfig = fake.kubeconfig_path
            server = "embedded API server"
        yield Cluster(client, folder=folder, kubeconfig=kubeconfig, server=server)


def wait_until(true: Callable[[], Any], *, what: str, seconds: float) -> None:
    """Wait for something that takes moments.

    Raises:
        DemoError: it did not happen in time.
    """
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            raise DemoError(f"it took too long: {what}")
        time.sleep(0.1)


def _container(name: str, state: JsonObject) -> JsonObject:
    ready = "terminated" in state
    return {"name": name, "image": _IMAGE, "imageID": "", "ready": ready, "restartCount": 0, "state": state}


def _not_ready(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return None if answer.status == 200 else f"/readyz says {answer.status}"
    except OSError as err:
        return f"/readyz: {err}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
