"""Longshore on the node, installed by its own command, and what an operator does there.

Promises: everything is asked through kubectl and the longshore command; what Velero's server would write is written by `backup` and `restore`. Waiting ends
with the objects' own words and the agent's log when something does not come true. Knows the node and what the command is called, and nothing of how it works.
"""

import base64
import contextlib
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.node.kubelet import NODE, ROOT
from tests.node.node import Node
from tests.support import velero_asks

__all__ = ["CACHES", "NAMESPACE", "TERMINAL", "Site"]

NAMESPACE = "velero"
TERMINAL = {"Completed", "Failed", "Canceled"}
_BUCKET = "backups"
_CLONE = Path(__file__).resolve().parents[2]
_PROFILE = "longshore/agent.json"
CACHES = Path("/var/lib/longshore")
"""The node's folder for agents' caches."""


class Site:
    """See the module's text."""

    def __init__(self, node: Node) -> None:
        """Prepare."""
        self.node = node
        self.kubectl = node.kubectl
        assert node.s3 is not None
        self.s3 = node.s3
        # On the machine's own file system, as the kubelet's folder is, for the engine is to find what a real node has.
        real = node.folder / "caches"
        real.mkdir()
        CACHES.mkdir()
        subprocess.run(["mount", "--bind", real, CACHES], check=True)

    def install(self, *words: str, bucket: str = _BUCKET) -> str:
        """Run `longshore install` with our image, the S3 server and our seccomp profile; gives its output."""
        profile = ROOT / "seccomp" / _PROFILE
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.write_bytes((_CLONE / "daemonset" / "seccomp" / "agent.json").read_bytes())
        self.s3.bucket(bucket)
        with tempfile.NamedTemporaryFile("w", suffix=".credentials") as secret:
            secret.write(self.credentials())
            secret.flush()
            return self.longshore(
                "install",
                "--image=docker.io/library/longshore:0.1.0",
                f"--bucket={bucket}",
                f"--backup-location-config=region={self.s3.region},s3Url={self.s3.endpoint_url},s3ForcePathStyle=true",
                f"--secret-file={secret.name}",
                "--set=agent.seccompProfile.type=Localhost",
                f"--set=agent.seccompProfile.localhostProfile={_PROFILE}",
                *words,
            )

    def credentials(self, access: str | None = None, secret: str | None = None) -> str:
        """Give a credentials file; the S3 server's own when none are named."""
        return (
            f"[default]\naws_access_key_id = {access or self.s3.access_key}\n"
            f"aws_secret_access_key = {secret or self.s3.secret_key}\n"
        )

    def longshore(self, *words: str, ok: bool = True) -> str:
        """Run the command as administrator; gives stdout and stderr."""
        where = [f"--kubeconfig={self.node.control_plane.api.kubeconfig}", f"--namespace={NAMESPACE}"]
        return self._command(*words, *where, ok=ok)

    def bring_back(self, snapshot: str, namespace: str, target: Path) -> None:
        """Restore a snapshot of a namespace's volume by the command, without the cluster, with the key that lies in it."""
        held = self.get("secret", "longshore-repo-credentials")["data"]["repository-key"]
        with tempfile.NamedTemporaryFile() as key:
            key.write(base64.b64decode(held))
            key.flush()
            self._command(
                *("volume", "restore", snapshot, str(target), f"--key-file={key.name}"),
                f"--repository=s3://{_BUCKET}/plugins/longshore/{namespace}",
                AWS_ENDPOINT_URL=self.s3.endpoint_url,
                AWS_ACCESS_KEY_ID=self.s3.access_key,
                AWS_SECRET_ACCESS_KEY=self.s3.secret_key,
                AWS_REGION=self.s3.region,
            )

    def _command(self, *words: str, ok: bool = True, **settings: str) -> str:
        main = "import sys; from longshore.cli.main import main; sys.exit(main())"
        environment = {
            **settings,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(_CLONE / "python"),
            "HOME": str(self.node.folder),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        done = subprocess.run(
            [sys.executable, "-c", main, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert not ok or done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    # --- objects ---

    def apply(self, *objects: dict[str, Any]) -> None:
        """Lay objects down."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(listed))

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """Read one object."""
        return json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))

    def namespace(self, name: str, level: str = "privileged") -> str:
        """Make a namespace under a level of pod security."""
        labels = {"pod-security.kubernetes.io/enforce": level}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # The account of its pods is made by a controller, a moment later.
        self.wait(lambda: self.found("serviceaccount", "default", name), seconds=30, what=f"{name} has an account")
        return name

    def found(self, kind: str, name: str, namespace: str = NAMESPACE) -> bool:
        """Whether an object is there."""
        return bool(self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "name").strip())

    def pod(self, selector: str, namespace: str) -> dict[str, str]:
        """Wait for the one pod of a selector to be ready; gives its namespace, name and UID."""

        def ready() -> dict[str, str] | None:
            pods = json.loads(self.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
            pods = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
            if len(pods) != 1 or not _is_ready(pods[0]):
                return None
            return {"namespace": namespace, **{key: pods[0]["metadata"][key] for key in ("name", "uid")}}

        return self.wait(ready, seconds=120, what=f"the pod of {selector} is ready")

    def ready(self, name: str, namespace: str, *, seconds: float = 120) -> dict[str, str]:
        """Wait for a pod of this name to be ready."""
        self.wait(lambda: _is_ready(self.get("pod", name, namespace)), seconds=seconds, what=f"pod {name} is ready")
        return {"namespace": namespace, "name": name, "uid": self.get("pod", name, namespace)["metadata"]["uid"]}

    def placed(self, name: str, namespace: str) -> dict[str, str]:
        """Wait for an init container of a pod to run; gives the pod's namespace, name and UID."""

        def runs() -> bool:
            states = (self.get("pod", name, namespace).get("status") or {}).get("initContainerStatuses") or ()
            return any("running" in one["state"] for one in states)

        self.wait(runs, seconds=120, what=f"pod {name} waits for its volumes")
        return {"namespace": namespace, "name": name, "uid": self.get("pod", name, namespace)["metadata"]["uid"]}

    def gone(self, pod: dict[str, str]) -> None:
        """Wait until nothing of a pod is left on the node: no object, no folder, so no mount that somebody holds."""
        folder = ROOT / "pods" / pod["uid"]
        self.wait(lambda: not folder.exists(), seconds=90, what=f"the kubelet has taken {folder} away")

    def events(self, kind: str, name: str, *, namespace: str = NAMESPACE) -> dict[str, str]:
        """Give the messages of an object's events by their reasons."""
        picked = f"--field-selector=involvedObject.kind={kind},involvedObject.name={name}"
        found = json.loads(self.kubectl("get", "events", "-n", namespace, picked, "-o", "json"))["items"]
        return {one["reason"]: one["message"] for one in found}

    def volume(self, pod: dict[str, str], plugin: str, name: str) -> Path:
        """Tell where the kubelet has a volume."""
        return ROOT / "pods" / pod["uid"] / "volumes" / f"kubernetes.io~{plugin}" / name

    # --- backup and restore ---

    def backup(self, name: str, pod: dict[str, str], volume: str, **spec: Any) -> None:
        """Ask for a backup, as Velero's server would."""
        body = velero_asks.backup(name, pod, volume=volume, node=NODE, **spec)
        self._ask(body)

    def restore(self, name: str, pod: dict[str, str], volume: str, snapshot: str, **how: Any) -> None:
        """Ask for a restore, as Velero's server would."""
        body = velero_asks.restore(name, pod, volume=volume, snapshot=snapshot, **how)
        # The Restore that owns it is Velero's; here there is none, and the garbage collector would take what it owns.
        self._ask(body)

    def _ask(self, body: dict[str, Any]) -> None:
        """Make an object as a server does, to whom it is no fault when a definition does not know all of its fields."""
        body["metadata"]["namespace"] = NAMESPACE
        self.kubectl("create", "--validate=warn", "-f", "-", stdin=json.dumps(body))

    def ended(self, kind: str, name: str, *phases: str, seconds: float = 180.0) -> dict[str, Any]:
        """Wait until an object has ended; gives its status."""
        wanted = set(phases) or TERMINAL

        def look() -> dict[str, Any] | None:
            status = self.get(kind, name).get("status") or {}
            return status if status.get("phase") in wanted else None

        return self.wait(look, seconds=seconds, what=f"{kind} {name} is {sorted(wanted)}")

    def backed_up(self, name: str, pod: dict[str, str], volume: str, **spec: Any) -> dict[str, Any]:
        """Back up and wait for the end; gives the status."""
        self.backup(name, pod, volume, **spec)
        return self.ended("podvolumebackup", name)

    # --- the agent ---

    def agent(self) -> dict[str, str]:
        """Wait for the agent's pod to be ready."""
        return self.pod("name=node-agent", NAMESPACE)

    @contextlib.contextmanager
    def changed_agent(self, change: Callable[[dict[str, Any]], None], *, until_ready: bool = True) -> Iterator[None]:
        """Let the agent's pods be of a changed spec for a while; afterwards they are as they were, and ready.

        Args:
            change: gets the pods' spec to change it.
            until_ready: whether the changed agent is waited for.
        """
        spec = self.get("daemonset", "node-agent")["spec"]["template"]["spec"]
        changed = copy.deepcopy(spec)
        change(changed)
        try:
            self._give_agent(changed)
            if until_ready:
                self._rolled_out()
            yield
        finally:
            self._give_agent(spec)
            self._rolled_out()

    def _give_agent(self, spec: dict[str, Any]) -> None:
        change = [{"op": "replace", "path": "/spec/template/spec", "value": spec}]
        self.kubectl("patch", "daemonset", "node-agent", "-n", NAMESPACE, "--type=json", "-p", json.dumps(change))

    def _rolled_out(self) -> None:
        self.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)
        self.agent()

    def agent_log(self) -> str:
        """Give what the agents have logged, the last container and the one before it."""
        told = []
        for previous in ("true", "false"):
            try:
                told.append(
                    self.kubectl(
                        "logs", "-n", NAMESPACE, "-l", "name=node-agent", f"--previous={previous}", "--tail=-1"
                    )
                )
            except AssertionError as err:
                told.append(f"({err})\n")
        return "".join(told)

    def wait(self, condition: Any, *, seconds: float, what: str) -> Any:
        """Ask again and again until something is true; gives it."""
        ends = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > ends:
                raise AssertionError(f"not in {seconds:g} s: {what}\n{self._told()}")
            time.sleep(0.2)
        return found

    def _told(self) -> str:
        shown = [
            self.kubectl("get", "pods", "-A", "-o", "wide"),
            self.kubectl("get", "podvolumebackups,podvolumerestores", "-A", "--ignore-not-found", "-o", "wide"),
            self.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp")[-6000:],
            self.agent_log()[-8000:],
        ]
        return "\n".join(shown)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
