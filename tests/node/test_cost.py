"""What agent and helper take on a node: the most memory that the agent's container has had while many files and a large one went out, came back, and did both
at once, and how soon the helper that holds a restored pod looks for the first time. Judged is only what is promised: nobody was ended for want of
memory, and the helper starts in milliseconds.
"""

import contextlib
import json
import os
import re
import statistics
import time
from pathlib import Path

import pytest

from tests.cluster.node_rig import tree
from tests.node import tenant
from tests.node.room import CGROUP
from tests.node.site import NAMESPACE

_PLACE = "cost"
_FILES, _LARGE_BYTES, _BLOCK_BYTES = 50_000, 1 << 30, 8 << 20
_SIZE = f"{_FILES:,} small files and one of 1 GiB"
_STARTS = 40
# In a container of the image, as the runtime runs it: from the request for a process until what it says after its first look has come. What the runtime and
# the kubelet take to make a container is not in it.
_START = """
import json, os, subprocess, sys, time
took = []
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    helper = subprocess.Popen(["/velero-restore-helper", "first-look"], stdout=subprocess.PIPE, env={"LONGSHORE_RESTORES_ROOT": "/scratch/restores"})
    said = helper.stdout.readline()
    took.append(time.monotonic() - began)
    helper.terminate()
    helper.wait()
    time.sleep(0.05)
print(json.dumps([took, said.decode()]))
"""


@pytest.fixture(scope="module")
def pod(site):
    """A tenant's pod with an empty volume, and in it a folder in which the helper waits for one volume for ever."""
    site.namespace(_PLACE, level="restricted")
    made = tenant.simple_pod("plain", _PLACE)
    made["spec"]["containers"][0] = tenant.container(mounts={"scratch": "/scratch"})
    site.apply(made)
    found = site.ready("plain", _PLACE)
    root = site.volume(found, "empty-dir", "scratch")
    for folder in (root / "restores", root / "restores" / "data"):
        folder.mkdir()
        os.chown(folder, tenant.USER, tenant.USER)
    return found


def test_helper_starts_in_milliseconds(site, pod, figures):
    words = ["exec", "-n", _PLACE, pod["name"], "--", "/usr/bin/python3.11", "-Ic", _START, str(_STARTS)]
    took, said = json.loads(site.kubectl(*words))
    assert len(took) == _STARTS and "Waiting for volumes to be restored: done=0, total=1" in said, said
    assert statistics.median(took) < 0.1, took
    figures.note(
        "restore-wait helper, from process start to its first look",
        f"{statistics.median(took) * 1000:.1f} ms, the slowest of {_STARTS}: {max(took) * 1000:.1f} ms",
    )


def memory_group(container):
    """The folder of a container's memory cgroup, and what its files are called in this version of cgroups."""
    room = os.environ[CGROUP].strip("/")
    for base, names in (
        ("/sys/fs/cgroup/memory", ("memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt")),
        ("/sys/fs/cgroup", ("memory.peak", "memory.max", "memory.events")),
    ):
        for folder in Path(base, room).glob(f"**/*{container}*"):
            if (folder / names[0]).exists():
                return folder, names
    raise AssertionError(f"the container has no memory cgroup: container={container}")


def counted(text):
    """The times that the limit was met: the whole of one file in version 1, a line of one in version 2."""
    return int(text) if text.strip().isdecimal() else int(re.search(r"^max (\d+)$", text, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def volume(site, pod):
    """The pod's volume with many small files and a large one."""
    root = site.volume(pod, "empty-dir", "scratch")
    for number in range(_FILES):
        folder = root / f"d{number // 500}"
        if number % 500 == 0:
            folder.mkdir()
        (folder / f"f{number}").write_bytes(os.urandom(number % 2048))
    renew(root)
    return root


def renew(root):
    """Write the large file, of which no part was ever stored."""
    with open(root / "large", "wb") as file:
        file.writelines(os.urandom(_BLOCK_BYTES) for _ in range(_LARGE_BYTES // _BLOCK_BYTES))


@contextlib.contextmanager
def measured(site, figures, what):
    """Measure what is done meanwhile by an agent of which nothing else is known."""
    site.kubectl("delete", "pod", site.agent()["name"], "-n", NAMESPACE, "--wait=true")
    agent = site.agent()
    found = site.get("pod", agent["name"])
    (container,), (status,) = found["spec"]["containers"], found["status"]["containerStatuses"]
    assert container["resources"]["limits"]["memory"] == "512Mi"
    group, (peak, limit, failures) = memory_group(status["containerID"].partition("//")[2])
    assert int((group / limit).read_text()) == 512 << 20
    started = time.monotonic()
    yield
    figures.seconds(f"{_SIZE}: {what}", time.monotonic() - started)
    after = site.get("pod", agent["name"])["status"]["containerStatuses"][0]
    assert after["restartCount"] == 0 and after["containerID"] == status["containerID"], after
    (process, *_) = (int(one) for one in (group / "cgroup.procs").read_text().split())
    resident = int(re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)[1])
    # The pod's group has the same limit and more in it, so it is the one that meets it first.
    most, met = int((group / peak).read_text()), counted((group.parent / failures).read_text())
    figures.note(
        f"{_SIZE}: {what}: peak of the agent's container, limit 512 MiB",
        f"{most / (1 << 20):.0f} MiB with page cache, the pod's limit met {met} times; {resident / 1024:.0f} MiB resident",
    )
    assert resident << 10 < 512 << 20


def judge_backup(done):
    assert done["phase"] == "Completed" and done["progress"]["totalBytes"] > _LARGE_BYTES, done
    assert done["progress"]["totalFiles"] >= _FILES, done


def snapshot(site, pod):
    """The volume's snapshot of the first test, or one that is made now when that test was not run."""
    if not site.found("podvolumebackup", "cost"):
        site.backup("cost", pod, "scratch")
    return site.ended("podvolumebackup", "cost", seconds=300)["snapshotID"]


def came(root):
    """What must come back: all but when the root was last written, which is whenever the waiting container, not its owner, has taken `.velero` away."""
    found, links = tree(root)
    mode, owner, group, _, *others = found.pop(".")
    return (mode, owner, group, *others), found, links


def held(site, name):
    """A pod that waits for the volume to come back."""
    site.apply(tenant.restored_pod(name, _PLACE, "scratch"))
    return site.placed(name, _PLACE)


def test_backup_stays_below_the_memory_limit(site, pod, volume, figures):
    with measured(site, figures, "backup"):
        site.backup("cost", pod, "scratch")
        done = site.ended("podvolumebackup", "cost", seconds=300)
    judge_backup(done)


def test_restore_stays_below_the_memory_limit(site, pod, volume, figures):
    source, waiting = snapshot(site, pod), held(site, "back")
    with measured(site, figures, "restore"):
        site.restore("back", waiting, "scratch", source)
        done = site.ended("podvolumerestore", "back", seconds=300)
    assert done["phase"] == "Completed", done
    assert came(site.volume(waiting, "empty-dir", "scratch")) == came(volume)
    site.ready("back", _PLACE)
    site.kubectl("delete", "pod", "back", "-n", _PLACE, "--wait=false")


def test_two_jobs_at_once_stay_below_the_memory_limit(site, pod, volume, figures):
    source, waiting = snapshot(site, pod), held(site, "beside")
    renew(volume)
    with measured(site, figures, "backup of new content beside a restore"):
        site.restore("beside", waiting, "scratch", source)
        site.backup("beside", pod, "scratch", parentSnapshot="none")
        jobs = [site.ended(kind, "beside", seconds=300) for kind in ("podvolumerestore", "podvolumebackup")]
    judge_backup(jobs[1])
    assert jobs[0]["phase"] == "Completed", jobs[0]
    first, last = (pick(one[f"{key}Timestamp"] for one in jobs) for pick, key in ((max, "start"), (min, "completion")))
    assert first <= last, "one had ended when the other began"
    site.ready("beside", _PLACE)
    site.kubectl("delete", "pod", "beside", "-n", _PLACE, "--wait=false")
