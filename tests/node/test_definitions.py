"""Custom resource definitions that are not ours, under a whole node: those of Velero 1.9, and such as a version after ours might bring.

Each time a volume goes out and comes back, and what the definitions do not know is done without. Ours are put back at the end.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.support.components import ComponentMissingError, require_tool
from tests.support.lacking import lacks

_PLACE = "older"
_OURS = Path(__file__).resolve().parents[2] / "daemonset" / "crds"
_PLURALS = ("podvolumebackups", "podvolumerestores", "backupstoragelocations", "resticrepositories")


@pytest.fixture(scope="module")
def pod(site):
    """A tenant's pod."""
    site.namespace(_PLACE, level="restricted")
    site.apply(tenant.simple_pod("plain", _PLACE))
    found = site.ready("plain", _PLACE)
    fill(site.volume(found, "empty-dir", "scratch"), seed=51, megabytes=8, files=50)
    return found


@pytest.fixture
def put_back(site):
    """Ours, afterwards."""
    yield
    give(site, ours())


def ours():
    return [yaml.safe_load((_OURS / f"velero.io_{plural}.yaml").read_text()) for plural in _PLURALS]


def older(site):
    """What the real program of Velero 1.9 lays down."""
    try:
        program = require_tool("velero", version="1.9.3")
    except ComponentMissingError as err:
        lacks(str(err))
    printed = subprocess.run(
        [program, "install", "--crds-only", "--dry-run", "-o", "yaml"],
        env={"HOME": str(site.node.folder), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
        timeout=120,
    )
    listed = {one["spec"]["names"]["plural"]: one for one in yaml.safe_load(printed.stdout)["items"]}
    return [listed[plural] for plural in _PLURALS]


def newer():
    """Ours, with fields that we do not know, of which one must be given, and a version v2 beside v1."""
    found = ours()
    for one in found:
        (version,) = one["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            schema[part]["properties"]["tomorrow"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        schema["spec"]["properties"]["zone"] = {"type": "string", "default": "a"}
        schema["spec"]["required"] = sorted({*schema["spec"].get("required", ()), "zone"})
        one["spec"]["versions"].append({**json.loads(json.dumps(version)), "name": "v2", "storage": False})
    return found


def give(site, definitions):
    """Exchange definitions, whatever is in the present ones, and wait until what they say is what is served."""
    for one in definitions:
        one["metadata"].pop("creationTimestamp", None)
        one.pop("status", None)
    listed = {"apiVersion": "v1", "kind": "List", "items": definitions}
    site.kubectl("replace", "-f", "-", stdin=json.dumps(listed))
    # kubectl remembers for hours which version is preferred, also when that is not served any more.
    shutil.rmtree(site.node.control_plane.api.folder / ".kube", ignore_errors=True)
    wanted = {version["name"] for one in definitions for version in one["spec"]["versions"]}
    for one in definitions:
        site.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{one['metadata']['name']}")

    def served():
        group = json.loads(site.kubectl("get", "--raw", "/apis/velero.io"))
        return wanted == {version["version"] for version in group["versions"]}

    site.wait(served, seconds=30, what=f"versions {wanted} are served")


def check_out_and_back(site, pod, name, **spec):
    status = site.backed_up(f"{name}-out", pod, "scratch", parentSnapshot="none", **spec)
    assert status["phase"] == "Completed" and status["snapshotID"], (status, site.agent_log()[-4000:])
    site.apply(tenant.restored_pod(f"{name}-back", _PLACE, "scratch"))
    back = site.placed(f"{name}-back", _PLACE)
    site.restore(f"{name}-in", back, "scratch", status["snapshotID"])
    restored = site.ended("podvolumerestore", f"{name}-in")
    assert restored["phase"] == "Completed", (restored, site.agent_log()[-4000:])
    site.ready(f"{name}-back", _PLACE)
    assert tree(site.volume(back, "empty-dir", "scratch"), skip=("live",)) == tree(
        site.volume(pod, "empty-dir", "scratch"), skip=("live",)
    )
    site.kubectl("delete", "pod", f"{name}-back", "-n", _PLACE, "--wait=false")
    return status, restored


def test_definitions_of_an_older_velero(site, pod, put_back):
    agent = site.agent()
    give(site, older(site))
    status, restored = check_out_and_back(site, pod, "older")
    # What these do not know was dropped; should they keep it, this shows nothing any more.
    assert not {"node", "instance"} & {*status, *restored}
    assert site.agent() == agent


def test_definitions_of_a_newer_velero(site, pod, put_back):
    agent = site.agent()
    give(site, newer())
    check_out_and_back(site, pod, "newer", tomorrow={"deep": [1, {"er": None}]}, zone="b")
    found = site.get("podvolumebackup.v2.velero.io", "newer-out")
    assert found["apiVersion"] == "velero.io/v2" and found["status"]["phase"] == "Completed"
    # What we do not know is as it was.
    assert found["spec"]["tomorrow"] == {"deep": [1, {"er": None}]} and found["spec"]["zone"] == "b"
    assert site.agent() == agent
