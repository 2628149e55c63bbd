"""A node in a folder, an API server in this process, and agents on it: what tests of the controllers stand on.

`Rig.agent()` starts a real :class:`longshore.node_agent.NodeAgent` with short times and a data path in memory; several may be started one after another or at
once. `kill` ends one as SIGKILL would: its requests fail, its threads find nothing to write to, its lease is not given back.
"""

import contextlib
import itertools
import json
import threading
from pathlib import Path

from tests.unit.controllers.fake_datapath import FakeDataPath, FakeWorld, wait_for

from longshore.api.names import DEFINITIONS
from longshore.controllers.cluster import resource_of
from longshore.controllers.tasks import Interruption
from longshore.kube.client import KubeClient
from longshore.kube.fake import FakeApiServer
from longshore.kube.leases import LeaseTimes
from longshore.kube.resource import EVENTS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from longshore.node_agent import AgentSettings, NodeAgent

NODE = "node-1"
NAMESPACE = "velero"
RESOURCES = {definition.kind: resource_of(definition) for definition in DEFINITIONS}
PVB, PVR = RESOURCES["PodVolumeBackup"], RESOURCES["PodVolumeRestore"]
BSL = RESOURCES["BackupStorageLocation"]
TIMES = LeaseTimes(duration_seconds=3, renew_deadline_seconds=1.5, retry_period_seconds=0.1)
RESTORE_UID = "0b7f9c1e-restore"
TERMINAL = {"Completed", "Failed", "Canceled"}


class Rig:
    """One node with its cluster."""

    def __init__(self, folder: Path, server: FakeApiServer):
        self.folder, self.server = folder, server
        self.pods_root = folder / "pods"
        self.pods_root.mkdir()
        self.store = folder / "store"
        self.store.mkdir()
        self.world = FakeWorld()
        self.client = KubeClient.from_kubeconfig(server.kubeconfig_path)
        self._numbers = itertools.count(1)
        self._exits = contextlib.ExitStack()
        for resource in RESOURCES.values():
            server.register(resource)
        self.location("default")

    def close(self):
        self.world.gate.set()
        self._exits.close()
        self.client.close()

    # -- objects ---------------------------------------------------------------------------------------------------------------

    def location(self, name, **spec):
        body = {"provider": "filesystem", "config": {"path": str(self.store)}, **spec}
        return self.server.put(BSL, {"metadata": {"name": name}, "spec": body}, namespace=NAMESPACE)

    def pod(self, name="db-0", *, namespace="shop", volumes=None, claim=None, **pod):
        """Make a pod with a volume `data`, its folder on the node, and its PVC and PV when `claim` names one."""
        source = {"emptyDir": {}} if claim is None else {"persistentVolumeClaim": {"claimName": claim}}
        made = self.server.put(
            PODS,
            {
                "metadata": {"name": name, **pod.pop("metadata", {})},
                "spec": {
                    "nodeName": NODE,
                    "containers": [{"name": "db", "image": "db"}],
                    "volumes": volumes or [{"name": "data", **source}],
                    **pod.pop("spec", {}),
                },
                "status": pod.pop("status", {"phase": "Running"}),
            },
            namespace=namespace,
        )
        uid = made["metadata"]["uid"]
        if claim is None:
            path = self.pods_root / uid / "volumes" / "kubernetes.io~empty-dir" / "data"
        else:
            self.claim(claim, namespace=namespace)
            path = self.pods_root / uid / "volumes" / "kubernetes.io~csi" / f"pv-{claim}" / "mount"
        path.mkdir(parents=True)
        return made, path

    def claim(self, name, *, namespace="shop"):
        if self.server.get(PERSISTENT_VOLUME_CLAIMS, name, namespace=namespace) is None:
            self.server.put(
                PERSISTENT_VOLUME_CLAIMS,
                {"metadata": {"name": name}, "spec": {"volumeName": f"pv-{name}"}},
                namespace=namespace,
            )
            csi = {"driver": "csi.example.com", "volumeHandle": name}
            self.server.put(PERSISTENT_VOLUMES, {"metadata": {"name": f"pv-{name}"}, "spec": {"csi": csi}})

    def backup(self, pod, *, name=None, volume="data", **spec):
        metadata = pod["metadata"]
        body = {
            "metadata": {"name": name or f"b-{next(self._numbers)}", "labels": {"velero.io/backup-name": "b"}},
            "spec": {
                "node": NODE,
                "pod": {"kind": "Pod", **{part: metadata[part] for part in ("namespace", "name", "uid")}},
                "volume": volume,
                "backupStorageLocation": "default",
                "repoIdentifier": "",
                "tags": {"backup": "b", "volume": volume},
                **spec,
            },
        }
        return self.client.create(PVB, body, namespace=NAMESPACE)["metadata"]["name"]

    def waiting_pod(self, name="back-0", *, container="restore-wait", running=True, security=None, **pod):
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}} if running else {"waiting": {"reason": "x"}}
        one = {"name": container, "image": "w", "args": [RESTORE_UID]}
        if security is not None:
            one["securityContext"] = security
        return self.pod(
            name,
            spec={"initContainers": [one], **pod.pop("spec", {})},
            status={"phase": "Pending", "initContainerStatuses": [{"name": container, "state": state}]},
            **pod,
        )

    def let_waiter_end(self, pod, *, exit_code=0):
        found = self.server.get(PODS, pod["metadata"]["name"], namespace=pod["metadata"]["namespace"])
        for one in found["status"]["initContainerStatuses"]:
            one["state"] = {"terminated": {"exitCode": exit_code}}
        self.server.put(PODS, found, namespace=pod["metadata"]["namespace"])

    def restore(self, pod, snapshot_id, *, name=None, volume="data", metadata=None, **spec):
        found = pod["metadata"]
        owner = {"apiVersion": "velero.io/v1", "kind": "Restore", "name": "r", "uid": RESTORE_UID, "controller": True}
        body = {
            "metadata": {"name": name or f"r-{next(self._numbers)}", "ownerReferences": [owner], **(metadata or {})},
            "spec": {
                "pod": {"kind": "Pod", **{part: found[part] for part in ("namespace", "name", "uid")}},
                "volume": volume,
                "backupStorageLocation": "default",
                "repoIdentifier": "",
                "snapshotID": snapshot_id,
                "sourceNamespace": "shop",
                **spec,
            },
        }
        return self.client.create(PVR, body, namespace=NAMESPACE)["metadata"]["name"]

    # -- looking ---------------------------------------------------------------------------------------------------------------

    def get(self, resource, name):
        return self.server.get(resource, name, namespace=NAMESPACE)

    def status(self, resource, name):
        status = (self.get(resource, name) or {}).get("status")
        return status if isinstance(status, dict) else {}

    def wait_phase(self, resource, name, *phases, seconds=20.0):
        wanted = set(phases) or TERMINAL
        try:
            return wait_for(
                lambda: status if (status := self.status(resource, name)).get("phase") in wanted else None,
                seconds=seconds,
                what=f"{name} {wanted}",
            )
        except AssertionError as err:
            raise AssertionError(f"{err}: status={self.status(resource, name)}") from err

    def done_backup(self, pod, **spec):
        return self.wait_phase(PVB, self.backup(pod, **spec))

    def events(self, name, reason):
        found = self.server.objects(EVENTS)
        return [one for one in found if one["involvedObject"]["name"] == name and one["reason"] == reason]

    def snapshots(self):
        return [one for stored in self.world.repositories.values() for one in stored.snapshots]

    # -- agents ----------------------------------------------------------------------------------------------------------------

    def agent(self, **settings):
        running = RunningAgent(self, settings)
        self._exits.callback(running.kill)
        return running


def records(out, message, **fields):
    """What fixture `out` has of the log: the records with this message and at least these fields."""
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    return [one for one in found if one["msg"] == message and fields.items() <= one.items()]


class RunningAgent:
    """An agent on threads of this process."""

    def __init__(self, rig, settings):
        self.rig = rig
        self.stop = threading.Event()
        self.client = KubeClient.from_kubeconfig(rig.server.kubeconfig_path)
        self.died = threading.Event()
        self.error = None
        self.settings = AgentSettings(
            **{
                "node_name": NODE,
                "namespace": NAMESPACE,
                "host_pods_root": rig.pods_root,
                "metrics_address": "127.0.0.1:0",
                "lease_times": TIMES,
                "grace_seconds": 5.0,
                "progress_seconds": 0.05,
                **settings,
            }
        )
        self.agent = NodeAgent(
            self.settings,
            client=self.client,
            datapath=FakeDataPath(rig.world),
            stop=self.stop,
            die=lambda _code: self.died.set(),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self.agent.run()
        except BaseException as err:
            self.error = err

    def wait_ready(self):
        wait_for(lambda: self.agent.manager.ready().ok and self.agent.lease.is_leader(), what="the agent is ready")
        return self

    def terminate(self):
        """As SIGTERM does."""
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.client.close()

    def kill(self):
        """As SIGKILL does: nothing more reaches the API server, nothing is given back."""
        self.client.close()
        self.agent.tasks.interrupt_all(Interruption.SHUTDOWN)
        self.stop.set()
        self._thread.join(20)
