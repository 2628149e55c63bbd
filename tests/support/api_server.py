"""A real kube-apiserver with a real etcd of its own, by default on loopback, for one test run or one demo.

Promises: nothing is shared between two of them: own folder, own authority, own etcd behind a unix socket, own port, which stays the same
across restarts. RBAC decides, so what a user may do here they may do in a cluster. After `stop` no process is left, nor the folder, if it
was a temporary one.

What it is not: a cluster (tests/node makes one of it). No controller manager runs: no namespace gets a default service account (so the admission plugin
that would demand one is off), nobody collects owned objects, a deleted namespace stays Terminating, and no pod runs; tests write the status of pods
themselves.

Does not know: longshore.
"""

import base64
import http.client
import json
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.held_folder import HeldFolder
from tests.support.pki import Authority, Pair, new_key_pem, write_private
from tests.support.processes import ChildProcess, ReservedPort
from tests.support.tools import require_tool

_START_TIMEOUT_SECONDS = 180.0  # 6 s on two idle cores; a runner that compiles beside it may take ten times that
_STOP_GRACE_SECONDS = 30.0
_ISSUER = "https://kubernetes.default.svc.cluster.local"


class ApiServer:
    """etcd and kube-apiserver. Use as a context manager, or call `start` and `stop`."""

    admission_args: tuple[str, ...] = ("--disable-admission-plugins=ServiceAccount",)

    def __init__(
        self,
        folder: Path | None = None,
        *,
        extra_args: Sequence[str] = (),
        address: str = "127.0.0.1",
        port: int | None = None,
        authority: Authority | None = None,
    ) -> None:
        """Prepare, start nothing.

        Args:
            folder: where everything lives; it is kept afterwards. A temporary one, removed by `stop`, when not given.
            extra_args: further flags of kube-apiserver.
            address: by which clients reach it; it listens there, and with a port of its own at every address.
            port: one that nobody else will take; the kernel's choice when not given.
            authority: who signs; one of its own when not given.
        """
        self._own = HeldFolder("apiserver") if folder is None else None
        self.folder = folder if self._own is None else self._own.path
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._extra_args = tuple(extra_args)
        self._port = ReservedPort() if port is None else None
        self.address, self.port = address, port if self._port is None else self._port.number
        self._listen = address if port is None else "0.0.0.0"
        self.authority = Authority() if authority is None else authority
        self._etcd: ChildProcess | None = None
        self._apiserver: ChildProcess | None = None
        self.url = f"https://{address}:{self.port}"
        self.kubeconfig = self.folder / "admin.kubeconfig"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start both and wait until the API server is ready.

        Raises:
            ComponentMissingError: one of the two is not built.
            ComponentFailedError: one of the two did not start.
        """
        etcd, self._program = require_tool("etcd"), require_tool("kube-apiserver")
        self._write_pki()
        # A unix socket in a folder of mode 0700 needs neither a port nor certificates. Its name has to look like host:port.
        self._etcd = ChildProcess(
            "etcd",
            [
                etcd,
                f"--data-dir={self.folder / 'etcd'}",
                "--listen-client-urls=unix://etcd:1",
                "--advertise-client-urls=unix://etcd:1",
                "--listen-peer-urls=unix://etcd-peer:1",
                "--initial-advertise-peer-urls=unix://etcd-peer:1",
                "--initial-cluster=default=unix://etcd-peer:1",
                "--unsafe-no-fsync",  # only a crash of the machine could lose anything, and with it goes the whole run
                "--log-level=warn",
            ],
            log_path=self.folder / "etcd.log",
        )
        socket_path = self.folder / "etcd:1"
        self._etcd.wait_ready(
            lambda: None if socket_path.is_socket() else "no socket yet", timeout_seconds=_START_TIMEOUT_SECONDS
        )
        self.start_apiserver()

    def start_apiserver(self) -> None:
        """Start kube-apiserver on the etcd that runs, and wait until it is ready.

        Raises:
            ComponentFailedError: it did not start.
        """
        pki = self.folder / "pki"
        self._apiserver = ChildProcess(
            "kube-apiserver",
            [
                self._program,
                "--etcd-servers=unix://etcd:1",
                f"--bind-address={self._listen}",
                f"--advertise-address={self.address}",  # else it looks for a network, and a machine without one has no server
                f"--secure-port={self.port}",
                f"--tls-cert-file={pki / 'apiserver.crt'}",
                f"--tls-private-key-file={pki / 'apiserver.key'}",
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--cert-dir={pki}",
                "--authorization-mode=Node,RBAC",
                "--anonymous-auth=false",
                *self.admission_args,
                "--allow-privileged=true",
                "--service-cluster-ip-range=10.96.0.0/24",
                "--endpoint-reconciler-type=none",  # nobody reaches us through a Service, and loopback is no valid endpoint
                f"--service-account-issuer={_ISSUER}",
                f"--service-account-key-file={pki / 'service-account.key'}",
                f"--service-account-signing-key-file={pki / 'service-account.key'}",
                "--profiling=false",
                *self._extra_args,
            ],
            log_path=self.folder / "kube-apiserver.log",
        )
        self._apiserver.wait_ready(self._not_ready, timeout_seconds=_START_TIMEOUT_SECONDS)

    def stop_apiserver(self, *, crash: bool = False) -> None:
        """End kube-apiserver and leave etcd running: an outage.

        Args:
            crash: by SIGKILL, so that open watches are cut in the middle of whatever they were sending.
        """
        if self._apiserver is not None:
            self._apiserver.stop(grace_seconds=0 if crash else _STOP_GRACE_SECONDS)
            self._apiserver = None

    def restart_apiserver(self, *, crash: bool = False) -> None:
        """End kube-apiserver and start it again at the same address with the same data."""
        self.stop_apiserver(crash=crash)
        self.start_apiserver()

    def stop(self) -> None:
        """End both at once, and remove the folder if it was a temporary one. A second call does nothing."""
        for child in (self._apiserver, self._etcd):
            if child is not None:
                child.stop()
        self._apiserver = self._etcd = None
        if self._port is not None:
            self._port.close()
        if self._own is not None:
            self._own.remove()

    def issue_kubeconfig(self, user: str, *, groups: Sequence[str] = (), path: Path | None = None) -> Path:
        """Write a kubeconfig for a user, who may do what RBAC grants them: at first nothing.

        Args:
            user: its name, as role bindings know it.
            groups: `system:masters` may do everything.
            path: where to write it; in the server's folder when not given.
        """
        target = path if path is not None else self.folder / f"{user.replace(':', '-').replace('/', '-')}.kubeconfig"
        write_private(target, self.render_kubeconfig(user, self.authority.issue_client(user, groups=groups)))
        return target

    def client(self, kubeconfig: Path | None = None) -> Any:
        """Make an official ApiClient, which is a context manager: the administrator's, or that of a kubeconfig."""
        from kubernetes import config  # here, so that finding and starting the server costs no import of the client

        new_client: Any = config.new_client_from_config  # untyped there
        return new_client(config_file=str(kubeconfig or self.kubeconfig))

    def kubectl(self, *args: str, stdin: str | None = None, timeout_seconds: float = 60.0) -> str:
        """Run the real kubectl as administrator and return its stdout.

        Raises:
            ComponentMissingError: kubectl is not built.
            AssertionError: it failed; the message holds its stderr.
        """
        command = [str(require_tool("kubectl")), f"--kubeconfig={self.kubeconfig}", *args]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}  # its discovery cache goes to $HOME/.kube
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout_seconds, check=False, env=env
        )
        if done.returncode != 0:
            raise AssertionError(
                f"kubectl failed: args={args}, exit_code={done.returncode}, stderr={done.stderr.strip()}"
            )
        return done.stdout

    def _write_pki(self) -> None:
        pki = self.folder / "pki"
        pki.mkdir(mode=0o700, exist_ok=True)
        (pki / "ca.crt").write_bytes(self.authority.certificate)
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        addresses = sorted({"127.0.0.1", "10.96.0.1", self.address})
        self.authority.issue_server("kube-apiserver", dns_names=names, addresses=addresses).write(pki, "apiserver")
        write_private(pki / "service-account.key", new_key_pem())
        admin = self.authority.issue_client("admin", groups=["system:masters"])
        certificate, key = admin.write(pki, "admin")
        write_private(self.kubeconfig, self.render_kubeconfig("admin", admin))
        self._tls = ssl.create_default_context(cadata=self.authority.certificate.decode())
        self._tls.load_cert_chain(certificate, key)

    def render_kubeconfig(self, user: str, pair: Pair) -> bytes:
        """Give a kubeconfig for a user with this certificate."""

        def encode(pem: bytes) -> str:
            return base64.b64encode(pem).decode()

        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority-data": encode(self.authority.certificate)},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate-data": encode(pair.certificate), "client-key-data": encode(pair.key)},
                }
            ],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        }
        return json.dumps(config, indent=2).encode()  # JSON is YAML

    def _not_ready(self) -> str | None:
        if self._etcd is not None:
            self._etcd.check_alive()
        connection = http.client.HTTPSConnection(self.address, self.port, timeout=5, context=self._tls)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as err:
            return f"/readyz cannot be asked: error={err}"
        else:
            return None if answer.status == http.HTTPStatus.OK else f"/readyz says {answer.status}: {body.strip()}"
        finally:
            connection.close()
