"""Nonsense in any field of a PVB or PVR: a terminal phase with a message, no escape from the pods root, and the agent goes on."""

import copy
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import NAMESPACE, NODE, PVB, PVR, TERMINAL

from longshore.kube.fake.status import StatusError
from longshore.kube.resource import EVENTS

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


@pytest.mark.parametrize("spec", ["x", 7, [1], None])
def test_backup_without_a_spec_worth_the_name_is_nobodys(rig, spec):
    """It names no node; what is counted of all backups is counted of the others."""
    pod, _path = rig.pod()
    agent = rig.agent().wait_ready().agent
    rig.server.put(PVB, {"metadata": {"name": "odd"}, "spec": spec}, namespace=NAMESPACE)
    wait_for(lambda: any(one.verb == "get" and one.name == "odd" for one in rig.server.seen))
    assert rig.done_backup(pod)["phase"] == "Completed"
    assert rig.status(PVB, "odd") == {} and b"longshore_jobs_running" in generate_latest(agent.registry)


def test_object_of_another_node_is_left_alone(rig):
    pod, _path = rig.pod()
    rig.agent().wait_ready()
    other = rig.backup(pod, node="node-2")
    odd = rig.backup(pod, node=NODE.upper())
    assert rig.done_backup(pod)["phase"] == "Completed"
    assert rig.status(PVB, other) == rig.status(PVB, odd) == {}


NOBODYS_PODS = [
    ({}, "not named"),
    (None, "not named"),
    (7, "not named"),
    ({"namespace": "shop", "name": ""}, "not named"),
    ({"namespace": "shop", "name": "../.."}, "not named"),
    ({"namespace": "shop", "name": "nobody-0"}, "not there"),
    ({"namespace": "nowhere", "name": "back-0"}, "not there"),
    ({"namespace": "shop", "name": "back-0", "uid": "of-an-earlier-one"}, "another one has its name"),
]


@pytest.mark.parametrize(("reference", "said"), NOBODYS_PODS)
def test_restore_into_nobody_is_told(rig, reference, said):
    """No node has such a pod, so no agent would ever take the object on; its user would wait for it for ever."""
    back, _target = rig.waiting_pod()
    name = rig.restore(back, "ls0-" + "0" * 32)
    cancelled = rig.restore(back, "ls0-" + "0" * 32, cancel=True)
    for one in (name, cancelled):
        rig.server.put(PVR, put_in(rig.get(PVR, one), ("spec", "pod"), reference), namespace=NAMESPACE)
    rig.agent(unclaimed_seconds=0.0, resync_seconds=0.2)
    status = rig.wait_phase(PVR, name)
    assert status["phase"] == "Failed" and said in status["message"] and "restore again" in status["message"]
    assert status["completionTimestamp"] and status["node"] == NODE
    assert rig.get(PVR, name)["metadata"]["annotations"]["longshore.io/node"] == NODE
    assert rig.wait_phase(PVR, cancelled)["phase"] == "Canceled"
    assert rig.world.calls == []
    wait_for(lambda: any(one["involvedObject"]["name"] == name for one in rig.server.objects(EVENTS)))


def test_restore_that_may_still_be_somebodys_is_left_alone(rig):
    back, _target = rig.waiting_pod()
    elsewhere, _path = rig.pod("far-0", spec={"nodeName": "node-2"})
    unscheduled, _path = rig.pod("new-0", spec={"nodeName": ""})
    snapshot = "ls0-" + "0" * 32
    names = [rig.restore(one, snapshot) for one in (elsewhere, unscheduled)]
    taken = rig.restore(back, snapshot)
    obj = put_in(rig.get(PVR, taken), ("spec", "pod"), {})
    obj["status"] = {"phase": "InProgress"}
    rig.server.put(PVR, obj, namespace=NAMESPACE)
    agent = rig.agent(unclaimed_seconds=0.0, resync_seconds=0.1).wait_ready()
    last = rig.restore(back, snapshot)
    rig.server.put(PVR, put_in(rig.get(PVR, last), ("spec", "pod"), {}), namespace=NAMESPACE)
    assert rig.wait_phase(PVR, last)["phase"] == "Failed"
    agent.terminate()
    assert [rig.status(PVR, name) for name in names] == [{}, {}] and rig.status(PVR, taken) == {"phase": "InProgress"}


def test_young_restore_is_left_alone(rig):
    """Its pod may be made a moment later."""
    back, _target = rig.waiting_pod()
    name = rig.restore(back, "ls0-" + "0" * 32)
    rig.server.put(PVR, put_in(rig.get(PVR, name), ("spec", "pod", "name"), "later-0"), namespace=NAMESPACE)
    agent = rig.agent(resync_seconds=0.1).wait_ready()
    rig.wait_phase(PVR, rig.restore(back, "ls0-" + "0" * 32))
    agent.terminate()
    assert rig.status(PVR, name) == {}
