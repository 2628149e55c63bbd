"""A kubelet in the room, registered as a node.

Promises: its folder is where every kubelet's is, /var/lib/kubelet, which in the room is one of the room's own; `stop` leaves the pods running, as a restart of
a kubelet does, and `start` waits until *this* kubelet has said that the node is ready. Does not know: longshore, but for the folder of seccomp profiles.
"""

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.node.control_plane import NODE_ADDRESS, ControlPlane
from tests.support.processes import ChildProcess
from tests.support.tools import require_tool

__all__ = ["NODE", "ROOT", "Kubelet"]

NODE = "node-1"
ROOT = Path("/var/lib/kubelet")
_START_SECONDS = 120.0


class Kubelet:
    """One kubelet."""

    def __init__(self, folder: Path, control_plane: ControlPlane, *, runtime: Path, cgroup: str) -> None:
        """Prepare.

        Args:
            runtime: socket of containerd.
            cgroup: below which pods get theirs.
        """
        self.folder, self._control_plane, self._runtime, self._cgroup = folder, control_plane, runtime, cgroup
        self._child: ChildProcess | None = None

    def start(self) -> None:
        """Start it and wait until the node is ready.

        Raises:
            ComponentMissingError: it is not built.
            ComponentFailedError: it did not start, or the node does not get ready.
        """
        program = require_tool("kubelet")
        self.folder.mkdir(parents=True, exist_ok=True)
        if not ROOT.is_mount():
            real = self.folder / "root"
            real.mkdir()
            ROOT.mkdir(exist_ok=True)
            # A file system of the machine itself, and not the overlay below it: volumes shall be like those of a real node.
            subprocess.run(["mount", "--bind", real, ROOT], check=True)
            subprocess.run(["mount", "--make-rshared", ROOT], check=True)
        config = self.folder / "config.json"
        config.write_text(json.dumps(self._configuration()))
        kubeconfig = self._control_plane.kubeconfig(f"system:node:{NODE}", groups=["system:nodes"])
        started = time.time()
        self._child = ChildProcess(
            "kubelet",
            [
                program,
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={NODE}",
                f"--node-ip={NODE_ADDRESS}",
                f"--root-dir={ROOT}",
            ],
            log_path=self.folder / "kubelet.log",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self._child.wait_ready(lambda: self._not_ready(started), timeout_seconds=_START_SECONDS)

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """End it; pods go on."""
        if self._child is not None:
            self._child.stop(grace_seconds=grace_seconds)
            self._child = None

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._child is not None, "the kubelet does not run"
        return self._child.pid

    def _configuration(self) -> dict[str, Any]:
        certificate, key = self._control_plane.serve_pair(self.folder, NODE)
        authority = str(self._control_plane.pki / "ca.crt")
        (self.folder / "resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\n")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": authority},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "containerRuntimeEndpoint": f"unix://{self._runtime}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
            "imageGCHighThresholdPercent": 100,
            "healthzBindAddress": "127.0.0.1",
            "podLogsDir": str(self.folder / "logs"),
            "resolvConf": str(self.folder / "resolv.conf"),
            # Tests end containers on purpose; a real node would wait up to five minutes before it starts one again.
            "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
        }

    def _not_ready(self, started: float) -> str | None:
        # After a restart the node's condition is still what the last kubelet said; a later heartbeat is this one's.
        try:
            told = self._control_plane.api.kubectl("get", "node", NODE, "-o", "json")
        except AssertionError as err:
            return str(err)
        for condition in json.loads(told)["status"].get("conditions", ()):
            if condition["type"] == "Ready":
                beat = datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()
                fresh = beat >= int(started)
                return None if condition["status"] == "True" and fresh else f"node is not ready: {condition['message']}"
        return "node has said nothing yet"
