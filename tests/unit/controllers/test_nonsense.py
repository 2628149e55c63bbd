"""Nonsense in any field of a PVB or PVR: a terminal phase with a message, no escape from the pods root, and the agent goes on."""

import copy
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.controllers.rig import NAMESPACE, NODE, PVB, PVR, TERMINAL

from longshore.kube.fake.status import StatusError

NONSENSE = [
    None,
    0,
    -1,
    2**70,
    True,
    "",
    "x",
    "../..",
    "a/b",
    "\u0000",
    "💥" * 50,
    "x" * 5000,
    [],
    [1],
    {},
    {"a": 1},
    1.5,
]
BACKUP_FIELDS = [
    ("spec", "pod"),
    ("spec", "pod", "name"),
    ("spec", "pod", "namespace"),
    ("spec", "pod", "uid"),
    ("spec", "volume"),
    ("spec", "backupStorageLocation"),
    ("spec", "repoIdentifier"),
    ("spec", "uploaderType"),
    ("spec", "tags"),
    ("spec", "tags", "backup"),
    ("spec", "uploaderSettings"),
    ("spec", "uploaderSettings", "ParallelFilesUpload"),
    ("spec", "cancel"),
    ("spec", "parentSnapshot"),
    ("metadata", "annotations"),
    ("metadata", "labels"),
    ("metadata", "finalizers"),
    ("metadata", "ownerReferences"),
    ("status",),
    ("status", "startTimestamp"),
    ("status", "progress"),
    ("status", "instance"),
    ("status", "message"),
    ("status", "node"),
]
RESTORE_FIELDS = [
    ("spec", "volume"),
    ("spec", "backupStorageLocation"),
    ("spec", "repoIdentifier"),
    ("spec", "snapshotID"),
    ("spec", "sourceNamespace"),
    ("spec", "uploaderType"),
    ("spec", "uploaderSettings"),
    ("spec", "uploaderSettings", "ParallelFilesDownload"),
    ("spec", "cancel"),
    ("spec", "snapshotSize"),
    ("metadata", "annotations"),
    ("metadata", "ownerReferences"),
    ("status",),
    ("status", "progress"),
]


def put_in(obj, field, value):
    changed = copy.deepcopy(obj)
    here = changed
    for part in field[:-1]:
        if not isinstance(here.get(part), dict):
            here[part] = {}
        here = here[part]
    here[field[-1]] = value
    return changed


@pytest.fixture
def world(rig):
    """A node with a pod to back up, one to restore into, a snapshot, and an agent."""
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    rig.agent(concurrency=4).wait_ready()
    rig.backup(pod, name="good")
    snapshot = rig.wait_phase(PVB, "good")["snapshotID"]
    back, _target = rig.waiting_pod()
    rig.restore(back, snapshot, name="good-restore")
    rig.wait_phase(PVR, "good-restore")
    templates = {PVB: rig.get(PVB, "good"), PVR: rig.get(PVR, "good-restore")}
    for template in templates.values():
        template.pop("status")
        template["metadata"] = {
            part: value for part, value in template["metadata"].items() if part in {"ownerReferences", "labels"}
        }
    (rig.folder / "canary").write_text("alive")
    return rig, templates, {"number": 0}


def throw_in(world, resource, field, value):
    rig, templates, counter = world
    counter["number"] += 1
    obj = put_in(templates[resource], field, value)
    obj["metadata"]["name"] = name = f"odd-{counter['number']}"
    try:
        rig.server.put(resource, obj, namespace=NAMESPACE)
    except StatusError:
        # Metadata has types that every API server insists on; the rest comes through.
        assert field[0] == "metadata"
        return
    status = rig.wait_phase(resource, name)
    assert status["phase"] in TERMINAL and status["completionTimestamp"]
    if status["phase"] == "Failed":
        assert len(status["message"]) > 20
    assert sorted(os.listdir(rig.folder)) == ["canary", "pods", "store"]


@pytest.mark.parametrize("resource", [PVB, PVR], ids=["backup", "restore"])
def test_nonsense_in_each_field(world, resource):
    fields = BACKUP_FIELDS if resource is PVB else RESTORE_FIELDS
    values = NONSENSE[:: 3 if resource is PVB else 4]
    for number, field in enumerate(fields):
        for value in [*values, NONSENSE[number % len(NONSENSE)]]:
            throw_in(world, resource, field, value)
    rig = world[0]
    pod, path = rig.pod("after")
    (path / "a").write_bytes(b"x")
    assert rig.done_backup(pod)["phase"] == "Completed"


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(BACKUP_FIELDS), value=json)
def test_made_up_nonsense(world, field, value):
    throw_in(world, PVB, field, value)


def test_object_of_another_node_is_left_alone(rig):
    pod, _path = rig.pod()
    rig.agent().wait_ready()
    other = rig.backup(pod, node="node-2")
    odd = rig.backup(pod, node=NODE.upper())
    assert rig.done_backup(pod)["phase"] == "Completed"
    assert rig.status(PVB, other) == rig.status(PVB, odd) == {}
