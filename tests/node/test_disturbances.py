"""What happens to a node while volumes go out and come back: nothing is stuck, nothing is lost, and every object ends by itself.

The volume is a tenant's emptyDir under the restricted pod-security level, large enough that a backup of all of it takes a second or more. Each backup that must
be under way when something happens is asked to read everything, with one thread; where it was quicker than what was done to it, that is done again.
"""

import itertools
import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.cluster.node_rig import fill, tree
from tests.node import tenant
from tests.node.room import CGROUP
from tests.node.site import NAMESPACE, TERMINAL

_PLACE = "busy"
_KILLS = int(os.environ.get("LONGSHORE_NODE_KILLS", "20"))
_OUTAGE_SECONDS = 120.0
_TRIES = 6
_HEADROOM_BYTES = 384 << 20
_names = (f"out-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def victim(site):
    """A pod with a large volume that does not change."""
    site.namespace(_PLACE, level="restricted")
    # It has written its folder `live`, and from now on it only waits.
    pod = tenant.simple_pod("victim", _PLACE)
    pod["spec"]["containers"][0] = tenant.container(mounts={"scratch": "/scratch"})
    site.apply(pod)
    found = site.ready("victim", _PLACE)
    root = site.volume(found, "empty-dir", "scratch")
    fill(root, seed=7, megabytes=240)
    os.chown(root, tenant.USER, tenant.USER)
    return found


@pytest.fixture(scope="module")
def expected(site, victim):
    """What the volume holds."""
    return tree(site.volume(victim, "empty-dir", "scratch"))


def begin(site, victim, **spec):
    """Start a backup that reads everything; gives its name as soon as it is under way."""
    name = next(_names)
    site.backup(name, victim, "scratch", parentSnapshot="none", uploaderSettings={"ParallelFilesUpload": "1"}, **spec)
    site.ended("podvolumebackup", name, "InProgress", seconds=60)
    return name


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
    name = begin(site, victim)
    site.node.kubelet.stop()
    started = time.monotonic()
    site.node.kubelet.start()
    figures.seconds("kubelet restarted until the node is Ready", time.monotonic() - started)
    status = end(site, name)
    assert site.agent() == agent and restarts(site, agent) == 0 and restarts(site, victim) == before
    assert status["instance"].startswith(agent["name"])


def test_containerd_restart_disturbs_nothing(site, victim):
    agent = site.agent()
    name = begin(site, victim)
    site.node.containers.stop()
    site.node.containers.start()
    end(site, name)
    assert site.agent() == agent and restarts(site, agent) == 0


def test_rolling_update_hands_a_backup_over(site, victim, expected, figures):
    for _ in range(_TRIES):
        agent, name = site.agent(), begin(site, victim)
        first = site.get("podvolumebackup", name)["status"]["instance"]
        started = time.monotonic()
        change = {"spec": {"template": {"metadata": {"annotations": {"test.node/turn": name}}}}}
        site.kubectl("patch", "daemonset", "node-agent", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))
        site.kubectl("rollout", "status", "daemonset/node-agent", "-n", NAMESPACE, "--timeout=120s", seconds=130)
        ready = time.monotonic() - started
        status = end(site, name)
        assert site.agent()["uid"] != agent["uid"]
        if status["instance"] != first:
            figures.seconds("rolling update during a backup, until the new agent is Ready", ready)
            figures.seconds("rolling update during a backup, until the backup is Completed", time.monotonic() - started)
            check_restores(site, status["snapshotID"], expected)
            return
    pytest.fail("each backup had ended before its agent was stopped")


def test_store_is_away_for_two_minutes(site, victim, expected, figures):
    for _ in range(_TRIES):
        name = begin(site, victim)
        site.s3.halt(crash=True)
        time.sleep(2.0)
        if site.get("podvolumebackup", name)["status"]["phase"] == "InProgress":
            break
        site.s3.start()
    time.sleep(_OUTAGE_SECONDS - 2.0)
    status = site.get("podvolumebackup", name)["status"]
    assert status["phase"] == "InProgress", status
    site.s3.start()
    back = time.monotonic()
    status = end(site, name)
    figures.seconds("store away for 120 s: from its return to Completed", time.monotonic() - back)
    check_restores(site, status["snapshotID"], expected)


def test_credentials_are_rotated_while_a_backup_runs(site, victim):
    def give(access, secret):
        text = site.credentials(access, secret)
        change = {"stringData": {"cloud": text}}
        site.kubectl("patch", "secret", "cloud-credentials", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))

    first, second = site.s3.account(), site.s3.account()
    give(*first)
    end(site, begin(site, victim))
    name = begin(site, victim)
    give(*second)
    site.s3.close_account(first[0])
    end(site, name)
    end(site, begin(site, victim))
    give(None, None)
    site.s3.close_account(second[0])


def test_neighbour_takes_the_memory_of_the_node(site, victim, expected, figures):
    """All pods of the node get little more than they use; a neighbour without a limit of its own takes it until the kernel ends somebody."""
    agent = site.agent()
    name = begin(site, victim)
    limit, used = memory_of_pods()
    hog = tenant.simple_pod("hog", _PLACE, restartPolicy="Never")
    eats = "b = []\nwhile True: b.append(bytearray(b'x') * (16 << 20))"
    hog["spec"]["containers"][0]["command"] = ["/usr/bin/python3.11", "-I", "-c", eats]
    before = limit.read_text().strip()
    limit.write_text(str(int(used.read_text()) + _HEADROOM_BYTES))
    try:
        site.apply(hog)

        def killed():
            return site.get("pod", "hog", _PLACE)["status"].get("phase") == "Failed"

        site.wait(killed, seconds=120, what="the neighbour is ended")
    finally:
        limit.write_text("-1" if before.isdecimal() else before)
    state = site.get("pod", "hog", _PLACE)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["reason"] == "OOMKilled", state
    status = end(site, name)
    figures.note("neighbour takes all memory: restarts of the agent", str(restarts(site, agent)))
    assert site.agent() == agent
    check_restores(site, status["snapshotID"], expected)


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


def test_pod_is_deleted_while_its_volume_is_read(site, figures):
    pod = tenant.simple_pod("leaving", _PLACE)
    site.apply(pod)
    found = site.ready("leaving", _PLACE)
    fill(site.volume(found, "empty-dir", "scratch"), seed=8, megabytes=160)
    name = begin(site, found)
    started = time.monotonic()
    site.kubectl("delete", "pod", "leaving", "-n", _PLACE, "--wait=true", "--timeout=60s", seconds=70)
    site.gone(found)
    figures.seconds("pod deleted during its backup, until nothing of it is left", time.monotonic() - started)
    status = site.ended("podvolumebackup", name)
    if status["phase"] == "Completed":  # it was quicker than the kubelet
        assert status["snapshotID"], status
    else:
        assert status["phase"] == "Failed" and "pod" in status["message"], status
        assert site.events("PodVolumeBackup", name)["Failed"] == status["message"][:1024], "nobody was told"


@pytest.mark.timeout(1200)
def test_agent_is_killed_at_random_moments(site, victim, expected, figures):
    """Half of the kills are by SIGKILL, so that the node's lease is left behind; half by deletion of the pod, so that another pod comes."""
    chance = random.Random(_KILLS)
    first = end(site, begin(site, victim))
    started, backups, restores = time.monotonic(), [], {}
    for moment in range(_KILLS):
        agent = site.agent()
        if moment % 3 == 2:
            name = f"back-{moment}"
            site.apply(tenant.restored_pod(name, _PLACE, "scratch"))
            restores[name] = site.placed(name, _PLACE)
            site.restore(name, restores[name], "scratch", first["snapshotID"])
            site.ended("podvolumerestore", name, "InProgress", *TERMINAL, seconds=90)
        else:
            name = f"kill-{moment}"
            site.backup(name, victim, "scratch", parentSnapshot="none")
            backups.append(name)
            site.ended("podvolumebackup", name, "InProgress", *TERMINAL, seconds=90)
        time.sleep(chance.uniform(0.0, 3.0))
        if moment % 2:
            kill_agent(site, agent)
        else:
            site.kubectl("delete", "pod", agent["name"], "-n", NAMESPACE, "--wait=false")
    last = time.monotonic()
    endings = [site.ended("podvolumebackup", name, seconds=120) for name in backups]
    endings += [site.ended("podvolumerestore", name, seconds=120) for name in restores]
    figures.seconds(f"agent killed {_KILLS} times in", last - started)
    figures.seconds("from the last kill until every object has ended", time.monotonic() - last)
    figures.note("of them Completed", f"{sum(one['phase'] == 'Completed' for one in endings)} of {len(endings)}")
    assert {one["phase"] for one in endings} == {"Completed"}, endings
    for name, pod in restores.items():
        site.ready(name, _PLACE)
        assert tree(site.volume(pod, "empty-dir", "scratch")) == expected, name
        site.kubectl("delete", "pod", name, "-n", _PLACE, "--wait=false")
    check_restores(site, site.get("podvolumebackup", backups[-1])["status"]["snapshotID"], expected)


def kill_agent(site, agent):
    """End the agent's process without a word; the kubelet starts the container again."""
    before = restarts(site, agent)
    (status,) = site.get("pod", agent["name"])["status"]["containerStatuses"]
    site.node.containers.ctr("tasks", "kill", "--signal=SIGKILL", status["containerID"].removeprefix("containerd://"))
    site.wait(lambda: restarts(site, agent) > before, seconds=90, what="the kubelet has started the agent again")
