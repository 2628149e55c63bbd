"""An installation that only backs up: what a process of its agent could still write, were it somebody else's.

A pod like the agent's, but with a program of ours in its place, tries to write into volumes: an emptyDir, a claim that was mounted before it began, and one
that is mounted while it runs. So that Landlock alone stands in its way it gets the pods folder writable and the capability to write anywhere; without the
confinement it succeeds everywhere, which shows that the try is a fair one.
"""

import copy
import json
import stat
import time
from pathlib import Path

import pytest

from tests.cluster.node_rig import fill
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.site import CACHES, NAMESPACE

_PLACE = "guarded"
_PROGRAM = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, "/usr/lib/longshore")
from longshore.confinement import forbid_writing_below
confined, early, late = sys.argv[1] == "confined", json.loads(sys.argv[2]), sys.argv[3]
if confined:
    forbid_writing_below(Path("/host_pods"))
def tried(place):
    told = []
    for call in (
        lambda: open(f"{place}/mine", "w").close(),
        lambda: open(f"{place}/theirs", "r+").close(),
        lambda: os.mkdir(f"{place}/folder"),
        lambda: os.rename(f"{place}/theirs", f"{place}/renamed"),
    ):
        try:
            call()
            told.append("done")
        except OSError as err:
            told.append(err.strerror)
    return told
def read(place):
    return sorted(os.listdir(place))
told = {name: [tried(f"/host_pods/{place}"), read(f"/host_pods/{place}")] for name, place in early.items()}
print(json.dumps(told), flush=True)
open("/tmp/elsewhere", "x").close()
while not (found := [one for one in Path("/host_pods").glob(f"*/volumes/*/{late}/theirs")]):
    time.sleep(0.1)
print(json.dumps({"late": [tried(found[0].parent), read(found[0].parent)]}), flush=True)
"""


@pytest.fixture(scope="module")
def backup_only(site):
    """The installation without restores; it is put back at the end."""
    site.install("--set=agent.restores=false")
    site.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)
    site.agent()
    yield site
    site.install()
    site.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)
    site.agent()


@pytest.fixture(scope="module")
def volumes(site):
    """A pod with an emptyDir and a claim, each with a file in it."""
    site.namespace(_PLACE)
    pod = claimant(site, "early")
    scratch, data = site.volume(pod, "empty-dir", "scratch"), site.volume(pod, "local-volume", "pv-early")
    (scratch / "theirs").write_text("x")
    return pod, {"scratch": scratch, "data": data}


def claimant(site, name):
    folder = site.node.folder / f"guarded-{name}"
    folder.mkdir()
    (folder / "theirs").write_text("x")
    site.apply(*tenant.persistent_volume(f"pv-{name}", folder, NODE, claim=name, namespace=_PLACE))
    pod = tenant.simple_pod(name, _PLACE)
    pod["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": name}})
    pod["spec"]["containers"][0] = tenant.container(mounts={"scratch": "/scratch", "data": "/data"})
    site.apply(pod)
    return site.ready(name, _PLACE)


def test_agent_gives_up_writing_and_backs_up(backup_only, volumes):
    site, (pod, places), began = backup_only, volumes, time.time()
    assert '"msg": "Gave up writing to volumes"' in site.agent_log()
    fill(places["data"], seed=21, megabytes=8, files=50)
    status = site.backed_up("guarded-1", pod, "data")
    assert status["phase"] == "Completed" and status["snapshotID"], (status, site.agent_log())
    # Its cache can be written, by it alone be read, and keeps to its folder of the node: what did not change is not read again.
    assert '"Working without a cache"' not in site.agent_log()
    cache = CACHES / NAMESPACE / "longshore"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700 and cache.stat().st_uid == 0
    assert any(one.lstat().st_mtime >= began for one in cache.rglob("*") if one.is_file())
    assert site.backed_up("guarded-2", pod, "data")["incrementalBytes"] == 0


@pytest.mark.parametrize("how", ["confined", "free"])
def test_hijacked_process(backup_only, volumes, how):
    site, (_, places) = backup_only, volumes
    early = {name: str(place.relative_to("/var/lib/kubelet/pods")) for name, place in places.items()}
    before = {name: sorted(place.name for place in Path(at).iterdir()) for name, at in places.items()}
    late = f"late-{how}"
    pod = impostor(site, f"impostor-{how}", [how, json.dumps(early), f"pv-{late}"])
    site.apply(pod)
    name = pod["metadata"]["name"]
    site.wait(lambda: logs(site, name), seconds=60, what="the first tries are told")
    claimant(site, late)
    told = {}
    for line in site.wait(lambda: len(logs(site, name)) > 1 and logs(site, name), seconds=60, what="all are told"):
        told |= json.loads(line)
    site.kubectl("delete", "pod", name, "-n", NAMESPACE, "--wait=true")
    assert set(told) == {"scratch", "data", "late"}
    wanted = ["Permission denied"] * 4 if how == "confined" else ["done"] * 4
    assert {one: tries for one, (tries, _) in told.items()} == dict.fromkeys(told, wanted)
    if how == "confined":
        # It reads what it always read, and nothing has changed.
        assert {one: seen for one, (_, seen) in told.items() if one != "late"} == before


def logs(site, name):
    try:
        return [line for line in site.kubectl("logs", name, "-n", NAMESPACE).splitlines() if line.startswith("{")]
    except AssertionError:
        return []


def impostor(site, name, arguments):
    """A pod like the agent's with another program, and less in its way."""
    template = site.get("daemonset", "node-agent")["spec"]["template"]
    spec = copy.deepcopy(template["spec"])
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    (container,) = spec["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe", "ports"):
        container.pop(probe, None)
    container |= {"command": ["/usr/bin/python3.11", "-I", "-c", _PROGRAM], "args": arguments}
    container["securityContext"]["capabilities"]["add"].append("DAC_OVERRIDE")
    for mount in container["volumeMounts"]:
        mount.pop("readOnly", None)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
