"""What happens to a node while volumes go out and come back: nothing is stuck, nothing is lost, and every object ends by itself.

The volume is a tenant's emptyDir under the restricted pod-security level, large enough that a backup of new content takes a second or more. Before each backup
that must be under way when something happens its content is made anew, for what the store has is not sent again. It is read whole, with one thread, and where
it was quicker than what was done to it, that is done again.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.node.kubelet import NODE
from tests.node.room import CGROUP
from tests.node.site import NAMESPACE, TERMINAL

_PLACE = "busy"
_KILLS = int(os.environ.get("LONGSHORE_NODE_KILLS", "20"))
_OUTAGE_SECONDS = 120.0
_TRIES = 6
_HEADROOM_BYTES = 384 << 20
_LARGE_MEGABYTES = 800
# So much is stored of the large volume, and so much is written back, before anything is done.
_STORED_BYTES, _WRITTEN_BYTES = 96 << 20, 64 << 20
# Of the time, in which the store answers while memory is taken: 700 MB take it eight seconds and more.
_SLOW_PART = 0.1
_HOG = """
import os, time
while not os.path.exists("/scratch/go"):
    time.sleep(0.01)
held = []
while True:
    held.append(bytearray(b"x") * (16 << 20))
    time.sleep(0.02)
"""
_names = (f"out-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def place(site):
    """The tenant's namespace."""
    return site.namespace(_PLACE, level="restricted")


@pytest.fixture(scope="module")
def victim(site, place):
    """A pod with a large volume that changes only when a test makes it anew."""
    pod = tenant.simple_pod("victim", _PLACE)
    pod["spec"]["containers"][0] = tenant.container(mounts={"scratch": "/scratch"})
    site.apply(pod)
    found = site.ready("victim", _PLACE)
    root = site.volume(found, "empty-dir", "scratch")
    fill(root, seed=7, megabytes=240)
    os.chown(root, tenant.USER, tenant.USER)
    return found


@pytest.fixture(scope="module")
def large(site, place):
    """A pod with a volume of which a backup takes seconds."""
    pod = tenant.simple_pod("large", _PLACE)
    pod["spec"]["containers"][0] = tenant.container(mounts={"scratch": "/scratch"})
    site.apply(pod)
    found = site.ready("large", _PLACE)
    root = site.volume(found, "empty-dir", "scratch")
    fill(root, seed=9, megabytes=_LARGE_MEGABYTES)
    os.chown(root, tenant.USER, tenant.USER)
    return found


def content(site, pod):
    """What the volume of a pod holds."""
    return tree(site.volume(pod, "empty-dir", "scratch"))


def renew(site, pod):
    """Write other data into the large files of a volume; what the store has of it is of no use then."""
    for path in site.volume(pod, "empty-dir", "scratch").glob("big*"):
        path.write_bytes(random.randbytes(path.stat().st_size))


def begin(site, victim):
    """Start a backup that reads and sends everything; gives its name as soon as it is under way."""
    renew(site, victim)
    return ask(site, victim, next(_names))


def ask(site, victim, name):
    """Start a backup that reads everything; gives its name as soon as it is under way."""
    site.backup(name, victim, "scratch", parentSnapshot="none", uploaderSettings={"ParallelFilesUpload": "1"})
    site.ended("podvolumebackup", name, "InProgress", *TERMINAL, seconds=90)
    return name


def begin_and(site, victim, act, undo):
    """Begin backups until one is still under way when that was done to it; gives its name."""
    for _ in range(_TRIES):
        name = begin(site, victim)
        act()
        if site.get("podvolumebackup", name)["status"]["phase"] == "InProgress":
            return name
        undo()
    pytest.fail("each backup had ended before anything was done to it")


def end(site, name, **how):
    """Wait for the end, which must be a good one."""
    status = site.ended("podvolumebackup", name, **how)
    assert status["phase"] == "Completed" and status["snapshotID"], (status, site.agent_log()[-8000:])
    return status


def check_restores(site, snapshot, expected):
    """Bring a snapshot back into a pod that waits for it, and compare."""
    name = f"check-{next(_names)}"
    site.apply(tenant.restored_pod(name, _PLACE, "scratch"))
    pod = site.placed(name, _PLACE)
    site.restore(name, pod, "scratch", snapshot)
    status = site.ended("podvolumerestore", name)
    assert status["phase"] == "Completed", status
    site.ready(name, _PLACE)
    assert tree(site.volume(pod, "empty-dir", "scratch")) == expected
    site.kubectl("delete", "pod", name, "-n", _PLACE, "--wait=true")


def restarts(site, pod):
    """How often the containers of a pod were started again."""
    statuses = site.get("pod", pod["name"], pod["namespace"])["status"]["containerStatuses"]
    return sum(one["restartCount"] for one in statuses)


def test_kubelet_restart_disturbs_nothing(site, victim, figures):
    agent, before = site.agent(), restarts(site, victim)
    name = begin_and(site, victim, site.node.kubelet.stop, site.node.kubelet.start)
    started = time.monotonic()
    site.node.kubelet.start()
    figures.seconds("kubelet restarted during a backup, until the node is Ready", time.monotonic() - started)
    status = end(site, name)
    figures.seconds("kubelet restarted during a backup, until it is Completed", time.monotonic() - started)
    assert site.agent() == agent and restarts(site, agent) == 0 and restarts(site, victim) == before
    assert status["instance"].startswith(agent["name"])
    check_restores(site, status["snapshotID"], content(site, victim))


def test_containerd_restart_disturbs_nothing(site, victim, figures):
    agent, before = site.agent(), restarts(site, victim)
    name = begin_and(site, victim, site.node.containers.stop, site.node.containers.start)
    started = time.monotonic()
    site.node.containers.start()
    figures.seconds("containerd restarted during a backup, until it answers", time.monotonic() - started)
    status = end(site, name)
    figures.seconds("containerd restarted during a backup, until it is Completed", time.monotonic() - started)
    assert site.agent() == agent and restarts(site, agent) == 0 and restarts(site, victim) == before
    check_restores(site, status["snapshotID"], content(site, victim))


def exchange_by_update(site, agent):
    change = {"spec": {"template": {"metadata": {"annotations": {"test.node/turn": agent["uid"]}}}}}
    site.kubectl("patch", "daemonset", "node-agent", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))
    site.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)


def exchange_by_deletion(site, agent):
    site.kubectl("delete", "pod", agent["name"], "-n", NAMESPACE, "--wait=true", "--timeout=90s", seconds=100)


@pytest.mark.parametrize(
    ("what", "exchange"),
    [("rolling update", exchange_by_update), ("agent's pod deleted", exchange_by_deletion)],
    ids=["update", "deletion"],
)
def test_another_pod_of_the_agent_goes_on_where_the_last_one_was(site, large, figures, what, exchange):
    """The node keeps what an agent knows: the backup is Completed as the object that it was, and what is stored is not read again."""
    for _ in range(_TRIES):
        agent, stored = site.agent(), held(site.s3.data_dir)
        name = begin(site, large)
        first = site.get("podvolumebackup", name)["status"]["instance"]
        wait_for_bytes(site.s3.data_dir, stored + _STORED_BYTES)
        started = time.monotonic()
        exchange(site, agent)
        assert site.agent()["uid"] != agent["uid"]
        ready = time.monotonic() - started
        status = end(site, name)
        if status["instance"] != first:
            break
    else:
        pytest.fail("each backup had ended before its agent was stopped")
    figures.seconds(f"{what} during a backup, until the new agent is Ready", ready)
    figures.seconds(f"{what} during a backup, until the backup is Completed", time.monotonic() - started)
    files, size = resumed(status)
    figures.note(f"{what}: what the backup did not read again", f"{files} files, {size >> 20} MiB")
    assert files > 0 and size > _STORED_BYTES // 3, status
    check_restores(site, status["snapshotID"], content(site, large))


def resumed(status):
    """How many files and bytes a backup took over from an attempt before it."""
    told = re.search(
        r"went on from an interrupted attempt: files_resumed=(\d+), bytes_resumed=(\d+)", status["message"]
    )
    assert told, status
    return int(told[1]), int(told[2])


def wait_for_bytes(*wanted):
    """Wait until folders hold so much: a folder and a number, and so on."""
    places = list(zip(wanted[::2], wanted[1::2], strict=True))
    ends = time.monotonic() + 60
    while any(held(root) < size for root, size in places):
        assert time.monotonic() < ends, f"nothing is stored or nothing comes back: wanted={places}"
        time.sleep(0.01)


def test_store_is_away_for_two_minutes(site, victim, figures):
    def go():
        site.s3.halt(crash=True)
        time.sleep(2.0)

    name = begin_and(site, victim, go, site.s3.start)
    time.sleep(_OUTAGE_SECONDS - 2.0)
    status = site.get("podvolumebackup", name)["status"]
    assert status["phase"] == "InProgress", status
    site.s3.start()
    back = time.monotonic()
    status = end(site, name)
    figures.seconds("store away for 120 s: from its return to Completed", time.monotonic() - back)
    check_restores(site, status["snapshotID"], content(site, victim))


def test_credentials_are_rotated_while_a_backup_runs(site, victim, figures):
    def give(access, secret):
        text = site.credentials(access, secret)
        change = {"stringData": {"cloud": text}}
        site.kubectl("patch", "secret", "cloud-credentials", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))

    def rotate():
        accounts.append(site.s3.account())
        give(*accounts[-1])
        site.s3.close_account(accounts[-2][0])

    accounts = [site.s3.account()]
    give(*accounts[0])
    end(site, begin(site, victim))
    name = begin_and(site, victim, rotate, lambda: None)
    rotated = time.monotonic()
    status = end(site, name)
    figures.seconds("credentials rotated during a backup, until it is Completed", time.monotonic() - rotated)
    check_restores(site, status["snapshotID"], content(site, victim))
    end(site, begin(site, victim))
    give(None, None)
    site.s3.close_account(accounts[-1][0])


def test_neighbour_takes_the_memory_of_the_node(site, large, figures):
    """All pods of the node get little more than they use; a neighbour without a limit of its own takes it until the kernel ends somebody.

    Bytes reach the store before the memory is taken, while it is, and after the neighbour's end.
    The store is slow meanwhile, or the backup would be over first.
    """
    agent, before = site.agent(), restarts(site, site.agent())
    for _ in range(_TRIES):
        hog = tenant.simple_pod(f"hog-{next(_names)}", _PLACE, restartPolicy="Never")
        hog["spec"]["containers"][0]["command"] = ["/usr/bin/python3.11", "-I", "-c", _HOG]
        site.apply(hog)
        neighbour = site.ready(hog["metadata"]["name"], _PLACE)
        stored = held(site.s3.data_dir)
        name = begin(site, large)
        wait_for_bytes(site.s3.data_dir, stored + _STORED_BYTES)
        moved = [held(site.s3.data_dir) - stored]
        with site.s3.slowed(_SLOW_PART):
            ended = take_memory(site, neighbour)
            during = site.get("podvolumebackup", name)["status"]
        moved.append(held(site.s3.data_dir) - stored)
        status = end(site, name)
        moved.append(held(site.s3.data_dir) - stored)
        if during["phase"] == "InProgress":
            break
    else:
        pytest.fail("each backup had ended before the neighbour")
    assert ended["reason"] == "OOMKilled", ended
    assert _STORED_BYTES <= moved[0] < moved[1] < moved[2], moved
    sizes = ", ".join(f"{size >> 20} MiB" for size in moved)
    figures.note("neighbour takes all memory: stored when it began, when the neighbour was ended, in the end", sizes)
    figures.note("neighbour takes all memory: restarts of the agent", str(restarts(site, agent) - before))
    assert site.agent() == agent and during["instance"] == status["instance"]
    check_restores(site, status["snapshotID"], content(site, large))


def take_memory(site, neighbour):
    """Let the neighbour have all of it; gives how its container ended."""
    limit, used = memory_of_pods()
    before = limit.read_text().strip()
    limit.write_text(str(int(used.read_text()) + _HEADROOM_BYTES))
    try:
        (site.volume(neighbour, "empty-dir", "scratch") / "go").touch()

        def ended():
            (container,) = site.get("pod", neighbour["name"], _PLACE)["status"]["containerStatuses"]
            return container["state"].get("terminated")

        return site.wait(ended, seconds=120, what="the neighbour is ended")
    finally:
        limit.write_text("-1" if before.isdecimal() else before)


def memory_of_pods():
    """The files that limit and count the memory of all pods, in either version of cgroups."""
    group = os.environ[CGROUP].strip("/")
    for folder, limit, used in (
        (f"/sys/fs/cgroup/memory/{group}", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        (f"/sys/fs/cgroup/{group}", "memory.max", "memory.current"),
    ):
        if os.path.exists(f"{folder}/{limit}"):
            return Path(folder, limit), Path(folder, used)
    raise AssertionError("no cgroup limits the memory of pods here")


@pytest.mark.timeout(600)
def test_power_is_lost_while_volumes_go_out_and_come_back(site, large, figures):
    """All processes of the node end at once, and what it held in memory is gone; its disk stays, and API server and store are elsewhere."""
    # The restore is of what was there before the backup that the power cuts off.
    name = begin(site, large)
    first, came = end(site, name)["snapshotID"], content(site, large)
    assert "Rebooted" not in site.events("Node", NODE, namespace="default")
    agent, running = site.agent(), ready_pods(site)
    for _ in range(_TRIES):
        back = f"back-{next(_names)}"
        site.apply(tenant.restored_pod(back, _PLACE, "scratch"))
        waiting = site.placed(back, _PLACE)
        target, stored = site.volume(waiting, "empty-dir", "scratch"), held(site.s3.data_dir)
        name = begin(site, large)
        site.restore(back, waiting, "scratch", first)
        wait_for_bytes(site.s3.data_dir, stored + _STORED_BYTES, target, _WRITTEN_BYTES)
        before = restarts(site, agent)
        count, lost = site.node.lose_power(), time.monotonic()
        begun = [site.get("podvolumebackup", name)["status"], site.get("podvolumerestore", back)["status"]]
        site.node.boot()
        booted = time.monotonic()
        if all(one["phase"] == "InProgress" for one in begun):
            break
        site.wait(lambda: restarts(site, agent) > before, seconds=90, what="the agent is started again")  # noqa: B023
    else:
        pytest.fail("backup or restore had ended before the power was lost")
    ended = [end(site, name), site.ended("podvolumerestore", back)]
    figures.note("power lost: processes of the node that ended at once", str(count))
    figures.seconds("power lost: from the daemons' start until the node is Ready", booted - lost)
    figures.seconds("power lost: until backup and restore are Completed", time.monotonic() - lost)
    assert [one["phase"] for one in ended] == ["Completed", "Completed"], ended
    assert not {one["instance"] for one in begun} & {one["instance"] for one in ended}
    files, size = resumed(ended[0])
    assert files > 0 and size > _STORED_BYTES // 3, ended[0]
    figures.note("power lost: what the backup did not read again", f"{files} files, {size >> 20} MiB")
    site.ready(back, _PLACE)
    assert tree(target) == came
    check_restores(site, ended[0]["snapshotID"], content(site, large))
    # The same pod with the same volumes, its cache among them; and to the kubelet it was a boot.
    assert site.agent() == agent and restarts(site, agent) > before
    assert "Rebooted" in site.events("Node", NODE, namespace="default")
    # Restored ones among them: a boot runs their init container again, and the done-file for which it waits was gone.
    site.wait(lambda: ready_pods(site) >= running, seconds=120, what="every pod that ran runs again")


def held(root):
    """How many bytes the files of a folder have while others make and remove some."""
    total = 0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{folder}/{name}").st_size
    return total


def ready_pods(site):
    """Names of all pods on the node of which every container runs and is ready."""
    pods = json.loads(site.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    return {
        (pod["metadata"]["namespace"], pod["metadata"]["name"])
        for pod in pods
        if all(one["ready"] for one in pod["status"].get("containerStatuses") or [{"ready": False}])
    }


def test_pod_is_deleted_while_its_volume_is_read(site, place, figures):
    pod = tenant.simple_pod("leaving", _PLACE)
    site.apply(pod)
    found = site.ready("leaving", _PLACE)
    fill(site.volume(found, "empty-dir", "scratch"), seed=8, megabytes=480)
    # More than the agent's buffers hold, and a slow store: the backup is not over before the kubelet has taken the volume away.
    with site.s3.slowed(_SLOW_PART):
        name = begin(site, found)
        started = time.monotonic()
        site.kubectl("delete", "pod", "leaving", "-n", _PLACE, "--wait=true", "--timeout=60s", seconds=70)
        site.gone(found)
        figures.seconds("pod deleted during its backup, until nothing of it is left", time.monotonic() - started)
    status = site.ended("podvolumebackup", name)
    assert status["phase"] == "Failed" and "pod" in status["message"], status
    assert site.events("PodVolumeBackup", name)["Failed"] == status["message"][:1024], "nobody was told"


@pytest.mark.timeout(1800)
def test_agent_is_killed_at_random_moments(site, victim, figures, tmp_path):
    """Half of the kills are by SIGKILL, so that the node's lease is left behind; half by deletion of the pod, so that another pod comes."""
    chance = random.Random(_KILLS)
    first, came = end(site, begin(site, victim))["snapshotID"], content(site, victim)
    started, backups, restores, met = time.monotonic(), {}, {}, 0
    for moment in range(_KILLS):
        agent = site.agent()
        if moment % 3 == 2:
            kind, name = "podvolumerestore", f"back-{moment}"
            site.apply(tenant.restored_pod(name, _PLACE, "scratch"))
            restores[name] = site.placed(name, _PLACE)
            site.restore(name, restores[name], "scratch", first)
            site.ended(kind, name, "InProgress", *TERMINAL, seconds=90)
        else:
            # Its content must not be made anew under one that was killed and goes on.
            for one in backups:
                site.ended("podvolumebackup", one)
            renew(site, victim)
            kind, name = "podvolumebackup", f"kill-{moment}"
            backups[name] = content(site, victim)
            ask(site, victim, name)
        time.sleep(chance.uniform(0.0, 0.8))
        if moment % 2:
            kill_agent(site, agent)
        else:
            site.kubectl("delete", "pod", agent["name"], "-n", NAMESPACE, "--wait=false")
        met += site.get(kind, name)["status"]["phase"] == "InProgress"
    last = time.monotonic()
    endings = [site.ended("podvolumebackup", name, seconds=120) for name in backups]
    endings += [site.ended("podvolumerestore", name, seconds=120) for name in restores]
    figures.seconds(f"agent killed {_KILLS} times in", last - started)
    figures.note("of these kills met a job under way", str(met))
    figures.seconds("from the last kill until every object has ended", time.monotonic() - last)
    resumes = sum("went on from an interrupted attempt" in one.get("message", "") for one in endings[: len(backups)])
    figures.note("of the backups went on where they were", f"{resumes} of {len(backups)}")
    figures.note("of them Completed", f"{sum(one['phase'] == 'Completed' for one in endings)} of {len(endings)}")
    assert {one["phase"] for one in endings} == {"Completed"}, endings
    assert met, "no kill met a job"
    for name, pod in restores.items():
        site.ready(name, _PLACE)
        assert content(site, pod) == came, name
        site.kubectl("delete", "pod", name, "-n", _PLACE, "--wait=false")
    for (name, expected), ending in zip(backups.items(), endings, strict=False):
        site.bring_back(ending["snapshotID"], _PLACE, tmp_path / name)
        assert tree(tmp_path / name) == expected, name
        shutil.rmtree(tmp_path / name)


def kill_agent(site, agent):
    """End the agent's process without a word; the kubelet starts the container again."""
    before = restarts(site, agent)
    (status,) = site.get("pod", agent["name"])["status"]["containerStatuses"]
    site.node.containers.ctr("tasks", "kill", "--signal=SIGKILL", status["containerID"].removeprefix("containerd://"))
    site.wait(lambda: restarts(site, agent) > before, seconds=90, what="the kubelet has started the agent again")
