"""The whole node: control plane, containerd with our images, kubelet, and an S3 server that pods reach.

Use it in a room (tests/node/room.py); what `stop` does not end, the room ends. Images and cluster state lie in memory, for unpacking them onto a disk
and removing them takes longer than all the rest of the start; volumes lie on the disk. `took` tells how long each step of the start took.
"""

import os
import subprocess
import time
from pathlib import Path

from tests.node.containers import Containers
from tests.node.control_plane import NODE_ADDRESS, ControlPlane
from tests.node.images import PAUSE, archives
from tests.node.kubelet import ROOT as KUBELET_ROOT
from tests.node.kubelet import Kubelet
from tests.node.power import clear, end_all
from tests.node.room import CGROUP, FOLDER
from tests.support.components import S3Server

__all__ = ["IMAGES", "Node"]

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "target" / "node"


class Node:
    """See the module's text."""

    def __init__(self) -> None:
        """Prepare, in the folder of the room."""
        self.folder = Path(os.environ[FOLDER])
        memory = self.folder / "memory"
        memory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", memory], check=True)
        self.control_plane = ControlPlane(memory / "control-plane")
        self.containers = Containers(memory / "containerd", pause=PAUSE)
        self.kubelet = Kubelet(
            self.folder / "kubelet", self.control_plane, runtime=self.containers.socket, cgroup=os.environ[CGROUP]
        )
        self.s3: S3Server | None = None
        self.took: dict[str, float] = {}

    def start(self) -> None:
        """Start all of it.

        Raises:
            ComponentMissingError: a program is not built.
            ComponentFailedError: one did not start.
        """
        self._step("etcd, API server, managers", self.control_plane.start)
        self._step("containerd", self.containers.start)
        self._step("images taken in", lambda: self.containers.import_images(archives(IMAGES)))
        self._step("kubelet until node Ready", self.kubelet.start)
        self.s3 = S3Server(self.folder / "s3", address=NODE_ADDRESS)
        self.s3.start()

    def stop(self) -> None:
        """End the daemons."""
        self.kubelet.stop(grace_seconds=0)
        self.containers.stop()
        if self.s3 is not None:
            self.s3.stop()
        self.control_plane.stop()

    def lose_power(self) -> int:
        """Let the node be cut off; control plane and S3 server go on, as if elsewhere.

        Returns:
            How many processes that ended.
        """
        count = end_all({self.kubelet.pid, self.containers.pid})
        self.kubelet.stop(grace_seconds=0)
        self.containers.stop()
        clear(
            self.folder,
            mounts_below=[KUBELET_ROOT, self.kubelet.folder, self.containers.folder],
            memory=[self.containers.state, self.containers.socket],
        )
        return count

    def boot(self) -> None:
        """Start the daemons again, as a machine does when it has power; returns when the node is ready."""
        self.containers.start()
        self.kubelet.start()

    def kubectl(self, *words: str, stdin: str | None = None, seconds: float = 60.0) -> str:
        """Run kubectl as administrator; gives its stdout."""
        return self.control_plane.api.kubectl(*words, stdin=stdin, timeout_seconds=seconds)

    def _step(self, name: str, call) -> None:
        started = time.monotonic()
        call()
        self.took[name] = time.monotonic() - started
