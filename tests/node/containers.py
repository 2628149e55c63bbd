"""containerd with runc and the bridge plugin: what the kubelet runs pods with.

Promises: its own folder, socket and network configuration; images come from archives only. `stop` ends containerd and leaves the pods running, as an update
of containerd does; the room ends those. Does not know: the kubelet, longshore.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import ChildProcess
from tests.support.tools import require_tool

__all__ = ["Containers"]

_PODS = "10.244.0.0/24"
_PLUGINS = ("bridge", "host-local", "loopback")
_START_SECONDS = 60.0
# Without the bound a container's OOM score cannot be lowered in a machine that lacks CAP_SYS_RESOURCE, and no pod starts.
_CONFIG = """\
version = 3
root = '{folder}/root'
state = '{state}'
[grpc]
  address = '{socket}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{folder}/opt'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{runc}'
      SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{folder}/plugins']
    conf_dir = '{folder}/network'
"""


class Containers:
    """containerd, and what it stands on."""

    def __init__(self, folder: Path, *, pause: str) -> None:
        """Prepare.

        Args:
            pause: image of a pod's first process.
        """
        self.folder, self._pause = folder, pause
        self.socket = folder / "containerd.sock"
        self.state = folder / "state"
        """What it keeps in memory on a real node."""
        self._child: ChildProcess | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ComponentMissingError: a program is not built.
            ComponentFailedError: it did not start.
        """
        program, runc = require_tool("containerd"), require_tool("runc")
        shim = require_tool("containerd-shim-runc-v2")
        plugins, self._ctr = require_tool("cni-plugins"), require_tool("ctr")
        for name in ("plugins", "network", "path"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # Both are found by the names that others call them by.
        for link, target in {
            **{f"plugins/{name}": plugins for name in _PLUGINS},
            "path/containerd-shim-runc-v2": shim,
            "path/runc": runc,
        }.items():
            (self.folder / link).unlink(missing_ok=True)
            (self.folder / link).symlink_to(target)
        config = self.folder / "config.toml"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                state=self.state,
                socket=self.socket,
                pause=self._pause,
                runc=self.folder / "path" / "runc",
            )
        )
        (self.folder / "network" / "10-pods.conflist").write_text(json.dumps(self._network()))
        self._child = ChildProcess(
            "containerd",
            [program, f"--config={config}"],
            log_path=self.folder / "containerd.log",
            env={"PATH": f"{self.folder / 'path'}:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self._child.wait_ready(self._not_ready, timeout_seconds=_START_SECONDS)

    def stop(self, *, grace_seconds: float = 0.0) -> None:
        """End containerd; pods go on."""
        if self._child is not None:
            self._child.stop(grace_seconds=grace_seconds)
            self._child = None

    @property
    def pid(self) -> int:
        """Process id of containerd."""
        assert self._child is not None, "containerd does not run"
        return self._child.pid

    def import_images(self, archives: Sequence[Path]) -> None:
        """Take images in."""
        for archive in archives:
            self.ctr("images", "import", str(archive))

    def ctr(self, *words: str) -> str:
        """Run containerd's own client; gives its stdout."""
        done = subprocess.run(
            [self._ctr, f"--address={self.socket}", "--namespace=k8s.io", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"ctr failed: words={words}, stderr={done.stderr}"
        return done.stdout

    def _network(self) -> dict[str, object]:
        bridge = {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": _PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.folder / "addresses"),
            },
        }
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}

    def _not_ready(self) -> str | None:
        done = subprocess.run(
            [self._ctr, f"--address={self.socket}", "version"], capture_output=True, text=True, check=False
        )
        return None if done.returncode == 0 else done.stderr.strip()
