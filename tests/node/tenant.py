"""What tenants run on the node: pods of our own image, which has an interpreter, under the restricted pod-security level.

A writer of each volume appends numbered lines to `live/log` and replaces `live/state` all the time, so that a backup reads files that change under it; what it
wrote can be judged without knowing when it was read: lines are whole, in order, without a gap. The next writer of a volume goes on where the last one was.
"""

from pathlib import Path
from typing import Any

from tests.support.velero_asks import RESTORE_UID

__all__ = ["CLAIM", "IMAGE", "USER", "check_live", "deployment", "persistent_volume", "restored_pod"]

IMAGE = "docker.io/library/longshore:0.1.0"
USER = 1000
CLAIM = "data"
_WRITER = """
import itertools, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
places = sys.argv[1:]
after = {}
for place in places:
    os.makedirs(f"{place}/live", exist_ok=True)
    path = f"{place}/live/log"
    after[place] = os.path.getsize(path) // 13 if os.path.exists(path) else 0
for step in itertools.count():
    for place in places:
        number = after[place] + step
        with open(f"{place}/live/log", "a") as log:
            log.write(f"{number:012d}\\n")
        with open(f"{place}/live/.new", "w") as state:
            state.write(f"{number:012d}\\n" * 1000)
        os.rename(f"{place}/live/.new", f"{place}/live/state")
    time.sleep(0.01)
"""
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def persistent_volume(name: str, path: Path, node: str, *, claim: str = CLAIM, namespace: str) -> list[dict[str, Any]]:
    """Make a volume that is a folder of the node, and a claim that is bound to it alone."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **spec,
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},
                "local": {"path": str(path)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**spec, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
        },
    ]


def container(*places: str, mounts: dict[str, str]) -> dict[str, Any]:
    """Make a writer of these places.

    Args:
        mounts: volume → where it is mounted.
    """
    return {
        "name": "db",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3.11", "-I", "-c", _WRITER, *places],
        "securityContext": _RESTRICTED,
        "volumeMounts": [{"name": name, "mountPath": place} for name, place in mounts.items()],
    }


def volumes(host: Path | None) -> list[dict[str, Any]]:
    """Give a volume of each kind; the one of the node only when a folder is named."""
    found: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "settings", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]
    return found + ([] if host is None else [{"name": "host", "hostPath": {"path": str(host)}}])


def deployment(name: str, namespace: str, *, host: Path) -> dict[str, Any]:
    """Make a Deployment with a volume of each kind."""
    mounts = {"scratch": "/scratch", "data": "/data", "settings": "/settings", "host": "/host"}
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [container("/scratch", "/data", mounts=mounts)],
                    "volumes": volumes(host),
                },
            },
        },
    }


def simple_pod(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Make a pod with one emptyDir that it writes."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [container("/scratch", mounts={"scratch": "/scratch"})],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            **spec,
        },
    }


def restored_pod(name: str, namespace: str, *mounted: str) -> dict[str, Any]:
    """Make a pod as Velero's restore makes it: an init container waits for the volumes named. What runs then writes nothing."""
    wait = {
        "name": "restore-wait",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/velero-restore-helper"],
        "args": [RESTORE_UID],
        "securityContext": _RESTRICTED,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": one, "mountPath": f"/restores/{one}"} for one in mounted],
    }
    idle = container(mounts={one: f"/{one}" for one in mounted})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "initContainers": [wait],
            "containers": [idle],
            "volumes": [one for one in volumes(None) if one["name"] in mounted],
        },
    }


def check_live(root: Path, *, at_least: int) -> int:
    """Judge what a writer left: whole lines in order, and so many of them; gives how many."""
    text = (root / "live" / "log").read_text()
    lines = text.splitlines()
    if not text.endswith("\n"):
        lines.pop()
    assert lines == [f"{number:012d}" for number in range(len(lines))], "a line is missing, doubled or torn"
    assert len(lines) >= at_least, (len(lines), at_least)
    state = (root / "live" / "state").read_text().splitlines()
    assert len(state) == 1000 and len(set(state)) == 1, "a file that is only ever replaced is torn"
    return len(lines)
