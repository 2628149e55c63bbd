"""What makes a cluster of an API server: it admits service accounts and nodes, controllers run, and pods get a place.

All of it listens in the room's own network (tests/node/room.py). The API server has the address of the Service `kubernetes` on the loopback device and
listens on the Service's port: pods reach it through their gateway, and no proxy for Services is needed. The only Service with an endpoint is that one.

Does not know: kubelet, containerd, longshore.
"""

import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from tests.support.api_server import ApiServer
from tests.support.pki import Authority, write_private
from tests.support.processes import ChildProcess
from tests.support.tools import require_tool

__all__ = ["NODE_ADDRESS", "ControlPlane"]

NODE_ADDRESS = "10.99.0.1"
_SERVICE_ADDRESS, _SERVICE_PORT = "10.96.0.1", 443
_STOP_GRACE_SECONDS = 10.0
# A process whose clock is ten years off still finds certificates valid, and one whose clock is a century off does not.
_VALID_AROUND_NOW = timedelta(days=50 * 365)


class _ClusterApiServer(ApiServer):
    admission_args = ("--enable-admission-plugins=NodeRestriction",)


class ControlPlane:
    """etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

    def __init__(self, folder: Path) -> None:
        """Prepare; `folder` is made."""
        self.folder = folder
        self._children: list[ChildProcess] = []
        pki = folder / "api" / "pki"
        self.pki = pki
        self.api = _ClusterApiServer(
            folder / "api",
            address=NODE_ADDRESS,
            port=_SERVICE_PORT,
            authority=Authority(around_now=_VALID_AROUND_NOW),
            extra_args=[
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--kubelet-certificate-authority={pki / 'ca.crt'}",
                f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
                f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
                "--kubelet-preferred-address-types=InternalIP",
            ],
        )

    def start(self) -> None:
        """Start everything and wait for the API server.

        Raises:
            ComponentMissingError: one of the programs is not built.
            ComponentFailedError: one did not start.
        """
        programs = [require_tool(name) for name in ("kube-controller-manager", "kube-scheduler")]
        for address in (NODE_ADDRESS, _SERVICE_ADDRESS):
            subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        self.pki.mkdir(parents=True)
        self.api.authority.issue_client("apiserver-kubelet", groups=["system:masters"]).write(
            self.pki, "apiserver-kubelet"
        )
        self.api.start()
        for program in programs:
            self._start_manager(program)

    def stop(self) -> None:
        """End everything."""
        for child in reversed(self._children):
            child.stop()
        self.api.stop()

    def kubeconfig(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig for a user; gives its path."""
        return self.api.issue_kubeconfig(user, groups=groups)

    def serve_pair(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Make a server's certificate and key for the node's address."""
        return self.api.authority.issue_server(name, dns_names=[name], addresses=[NODE_ADDRESS]).write(folder, name)

    def _start_manager(self, program: Path) -> None:
        name = program.name.rpartition("-")[0]
        config = self.kubeconfig(f"system:{name}")
        words = [
            program,
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ]
        if name == "kube-controller-manager":
            key = self.folder / "service-account.key"
            write_private(key, (self.pki / "service-account.key").read_bytes())
            words += [
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={key}",
                f"--root-ca-file={self.pki / 'ca.crt'}",
            ]
        self._children.append(ChildProcess(name, words, log_path=self.folder / f"{name}.log"))
