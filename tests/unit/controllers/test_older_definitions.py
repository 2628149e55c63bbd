"""Under the definitions of Velero 1.9, which know neither cancelling nor our fields: everything ends, and whose an object is stays known."""

from pathlib import Path

import pytest
import yaml
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import NAMESPACE, PVB, PVR

from longshore.kube.client import KubeClient
from longshore.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, PODS

CRDS = Path(__file__).parents[3] / "daemonset" / "crds"
KEPT = {
    "podvolumebackups": {
        "spec": ("backupStorageLocation", "node", "pod", "repoIdentifier", "tags", "volume"),
        "status": ("completionTimestamp", "message", "path", "phase", "progress", "snapshotID", "startTimestamp"),
    },
    "podvolumerestores": {
        "spec": ("backupStorageLocation", "pod", "repoIdentifier", "snapshotID", "volume"),
        "status": ("completionTimestamp", "message", "phase", "progress", "startTimestamp"),
    },
}


@pytest.fixture
def older(rig):
    """Replace the definitions of both kinds by ones with the fields and phases of 1.9; unknown fields are pruned."""
    for plural, parts in KEPT.items():
        definition = yaml.safe_load((CRDS / f"velero.io_{plural}.yaml").read_text())
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        for part, names in parts.items():
            schema[part].pop("x-kubernetes-preserve-unknown-fields", None)
            schema[part]["properties"] = {name: schema[part]["properties"][name] for name in names}
        schema["status"]["properties"]["phase"]["enum"] = ["New", "InProgress", "Completed", "Failed"]
        rig.client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    return rig


def test_fields_are_pruned_indeed(older):
    pod, _path = older.pod()
    name = older.backup(pod, cancel=True)
    assert "cancel" not in older.get(PVB, name)["spec"]


def test_out_and_back(older):
    pod, path = older.pod()
    (path / "a").write_bytes(b"x")
    older.agent()
    status = older.done_backup(pod)
    assert status["phase"] == "Completed" and "node" not in status and "instance" not in status
    back, target = older.waiting_pod()
    assert older.wait_phase(PVR, older.restore(back, status["snapshotID"]))["phase"] == "Completed"
    assert (target / "a").read_bytes() == b"x"


def test_killed_agents_object_is_taken_over(older):
    pod, path = older.pod()
    (path / "a").write_bytes(b"x")
    older.world.gate.clear()
    name = older.backup(pod)
    first = older.agent()
    wait_for(lambda: older.world.running == 1)
    first.kill()
    older.world.gate.set()
    older.agent()
    assert older.wait_phase(PVB, name)["phase"] == "Completed" and len(older.snapshots()) == 1


def test_restore_whose_pod_went_with_the_agent_ends(older):
    pod, path = older.pod()
    (path / "a").write_bytes(b"x")
    first = older.agent()
    snapshot = older.done_backup(pod)["snapshotID"]
    older.world.gate.clear()
    back, _target = older.waiting_pod()
    name = older.restore(back, snapshot)
    wait_for(lambda: older.world.running == 1)
    first.kill()
    older.client.delete(PODS, "back-0", namespace="shop", grace_period_seconds=0)
    older.world.gate.set()
    older.agent()
    status = older.wait_phase(PVR, name)
    assert status["phase"] == "Failed" and "the pod is not there" in status["message"]


@pytest.mark.parametrize("begun", [False, True])
def test_deletion_is_not_held_up_by_a_phase_that_is_not_known(older, begun):
    pod, _path = older.pod()
    if begun:
        older.world.gate.clear()
        older.agent()
    name = older.backup(pod)
    if begun:
        wait_for(lambda: older.world.running == 1)
    finalizers = {"metadata": {"finalizers": ["velero.io/pod-volume-finalizer", "example.com/look"]}}
    older.client.patch(PVB, name, finalizers, namespace=NAMESPACE)
    older.client.delete(PVB, name, namespace=NAMESPACE)
    if not begun:
        older.agent()
    status = older.wait_phase(PVB, name)
    assert status["phase"] == "Failed" and "cancelled" in status["message"]
    assert older.get(PVB, name)["metadata"]["finalizers"] == ["example.com/look"]
    with KubeClient.from_kubeconfig(older.server.kubeconfig_path) as client:
        client.patch(PVB, name, {"metadata": {"finalizers": None}}, namespace=NAMESPACE)
    wait_for(lambda: older.get(PVB, name) is None)
