"""The done-file among a tenant's tricks, and a root that the waiting container cannot search."""

import os
import shutil
import stat
import time

import pytest
from tests.support.lacking import needs
from tests.unit.controllers.fake_datapath import wait_for
from tests.unit.controllers.rig import PODS, PVR, RESTORE_UID

from longshore.api.core import Pod
from longshore.controllers import restore_wait
from longshore.controllers.after_restore import ANNOTATION_ROOT_MODE, ANNOTATION_TOLD_AGAIN, ANNOTATION_WAIT_FOLDER
from longshore.controllers.restore_wait import Waiting
from longshore.errors import LongshoreError, UsageError
from longshore.volumes import VolumePath


@pytest.fixture
def volume(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_text("alive")
    return tmp_path / "root"


def path_of(volume):
    return VolumePath(volume.parent, (volume.name,))


def link_to_outside(volume):
    os.symlink(volume.parent / "outside", volume / ".velero")


def link_inside(volume):
    (volume / ".velero").mkdir()
    os.symlink(volume.parent / "outside" / "canary", volume / ".velero" / RESTORE_UID)


def deep(volume):
    below = volume / ".velero"
    for number in range(40):
        below = below / str(number)
    below.mkdir(parents=True)
    os.symlink("/etc", below / "etc")
    (below / RESTORE_UID).write_text("")


TRICKS = {
    "nothing": lambda volume: None,
    "link out": link_to_outside,
    "link inside": link_inside,
    "dangling link": lambda volume: os.symlink("/nowhere", volume / ".velero"),
    "file": lambda volume: (volume / ".velero").write_text("x"),
    "fifo": lambda volume: os.mkfifo(volume / ".velero"),
    "deep": deep,
    "done file is a directory": lambda volume: (volume / ".velero" / RESTORE_UID).mkdir(parents=True),
    "done file is a fifo": lambda volume: ((volume / ".velero").mkdir(), os.mkfifo(volume / ".velero" / RESTORE_UID)),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_done_file_is_a_new_file_whatever_was_there(volume, trick):
    TRICKS[trick](volume)
    restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=False)
    found = os.lstat(volume / ".velero" / RESTORE_UID)
    assert stat.S_ISREG(found.st_mode) and found.st_size == 0 and stat.S_IMODE(found.st_mode) == 0o644
    assert stat.S_IMODE(os.lstat(volume / ".velero").st_mode) == 0o755
    assert os.listdir(volume / ".velero") == [RESTORE_UID]
    assert (volume.parent / "outside" / "canary").read_text() == "alive"
    assert os.listdir(volume.parent / "outside") == ["canary"]
    assert restore_wait.has_done_file(path_of(volume), RESTORE_UID)


@pytest.mark.parametrize("trick", [name for name in TRICKS if name != "nothing"])
def test_leftovers_go_first(volume, trick):
    TRICKS[trick](volume)
    assert restore_wait.remove_leftovers(path_of(volume))
    assert os.listdir(volume) == []
    assert (volume.parent / "outside" / "canary").read_text() == "alive"
    assert not restore_wait.remove_leftovers(path_of(volume))


@pytest.mark.parametrize("trick", ["link out", "link inside", "done file is a directory", "done file is a fifo"])
def test_tricks_are_no_done_file(volume, trick):
    TRICKS[trick](volume)
    if trick == "link out":
        (volume.parent / "outside" / RESTORE_UID).write_text("")
    assert not restore_wait.has_done_file(path_of(volume), RESTORE_UID)


def test_root_keeps_its_times(volume):
    os.utime(volume, ns=(1_000_000_001, 2_000_000_003))
    restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=True)
    status = os.stat(volume)
    assert status.st_mtime_ns == 2_000_000_003


def test_umask_takes_nothing(volume):
    old = os.umask(0o077)
    try:
        restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(volume / ".velero").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(volume / ".velero" / RESTORE_UID).st_mode) == 0o644


@pytest.mark.parametrize("uid", ["", ".", "..", "a/b", "../x", "a\0b", "x" * 64, "-x", "a b"])
def test_uid_that_is_no_name_is_refused(volume, uid):
    with pytest.raises(UsageError):
        restore_wait.write_done_file(path_of(volume), uid, open_to_others=False)
    assert os.listdir(volume) == []


def test_root_that_became_a_link_is_refused(volume):
    os.rmdir(volume)
    os.symlink("outside", volume)
    with pytest.raises(LongshoreError):
        restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=False)
    assert os.listdir(volume.parent / "outside") == ["canary"]


def pod_with(*, container=None, pod=None, state=None):
    one = {"name": "restore-wait", **({} if container is None else {"securityContext": container})}
    return Pod.from_dict(
        {
            "spec": {"initContainers": [one], **({} if pod is None else {"securityContext": pod})},
            "status": {"initContainerStatuses": [{"name": "restore-wait", "state": state or {}}]},
        }
    )


class Status:
    def __init__(self, mode, uid=0, gid=0):
        self.st_mode, self.st_uid, self.st_gid = mode, uid, gid


@pytest.mark.parametrize(
    ("container", "pod", "status", "can"),
    [
        ({"runAsUser": 1000}, None, Status(0o700, uid=999), False),
        ({"runAsUser": 999}, None, Status(0o700, uid=999), True),
        (None, {"runAsUser": 999}, Status(0o700, uid=999), True),
        ({"runAsUser": 1000}, {"runAsUser": 999}, Status(0o700, uid=999), False),
        (None, None, Status(0o700, uid=0), False),
        (None, None, Status(0o755), True),
        (None, {"fsGroup": 50}, Status(0o710, uid=999, gid=50), True),
        (None, {"supplementalGroups": [50]}, Status(0o710, uid=999, gid=50), True),
        ({"runAsUser": 1000, "runAsGroup": 50}, None, Status(0o710, uid=999, gid=50), True),
        ({"runAsUser": 1000}, None, Status(0o710, uid=999, gid=50), False),
        ({"runAsUser": 999}, None, Status(0o077, uid=999, gid=999), False),
        ({"runAsUser": 0}, None, Status(0o700, uid=999), True),
        ({"runAsUser": 0, "capabilities": {"drop": ["ALL"]}}, None, Status(0o700, uid=999), False),
    ],
)
def test_who_can_search(container, pod, status, can):
    assert restore_wait.waiter_user(pod_with(container=container, pod=pod)).can_search(status) is can


@pytest.mark.parametrize(
    ("container", "status", "can"),
    [
        ({"runAsUser": 1000}, Status(0o755, uid=1000), True),
        ({"runAsUser": 1000}, Status(0o755, uid=999), False),
        ({"runAsUser": 1000}, Status(0o777, uid=0), True),
        ({"runAsUser": 1000, "runAsGroup": 50}, Status(0o775, uid=999, gid=50), True),
        ({"runAsUser": 999}, Status(0o577, uid=999), False),
        ({"runAsUser": 0}, Status(0o755, uid=999), True),
        ({"runAsUser": 0, "capabilities": {"drop": ["ALL"]}}, Status(0o755, uid=999), False),
        (None, Status(0o755, uid=0), False),
    ],
)
def test_who_can_write(container, status, can):
    assert restore_wait.waiter_user(pod_with(container=container)).can_write(status) is can


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"running": {}}, Waiting.RUNNING),
        ({"waiting": {}}, Waiting.PENDING),
        ({}, Waiting.PENDING),
        ({"terminated": {"exitCode": 0}}, Waiting.OVER),
        ({"terminated": {"exitCode": 137}}, Waiting.PENDING),
    ],
)
def test_states_of_the_container(state, found):
    assert restore_wait.waiting(pod_with(state=state)) is found


def test_hidden_root_is_opened_until_the_container_ended(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    path.chmod(0o700)
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    assert rig.snapshots()[0].root_mode == 0o700
    back, target = rig.waiting_pod(security={"runAsUser": os.geteuid() + 1000})
    name = rig.restore(back, snapshot)
    status = rig.wait_phase(PVR, name)
    assert status["phase"] == "Completed" and "o+x until container restore-wait has ended" in status["message"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o701
    assert rig.get(PVR, name)["metadata"]["annotations"][ANNOTATION_ROOT_MODE] == "0700"
    rig.let_waiter_end(back)
    wait_for(lambda: stat.S_IMODE(target.stat().st_mode) == 0o700)
    status = wait_for(lambda: one if "true mode" in (one := rig.status(PVR, name))["message"] else None)
    assert status["phase"] == "Completed"
    wait_for(lambda: ANNOTATION_ROOT_MODE not in rig.get(PVR, name)["metadata"].get("annotations", {}))


def test_hidden_root_is_closed_by_the_next_instance(rig):
    pod, path = rig.pod()
    path.chmod(0o700)
    first = rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod(security={"runAsUser": os.geteuid() + 1000})
    name = rig.restore(back, snapshot)
    rig.wait_phase(PVR, name)
    first.kill()
    rig.let_waiter_end(back)
    rig.agent()
    wait_for(lambda: stat.S_IMODE(target.stat().st_mode) == 0o700)
    assert rig.status(PVR, name)["phase"] == "Completed"


def boot(rig, pod, *, started="2099-01-01T00:00:00Z", **labels):
    """Have the pod's waiting container run once more, as after its node has booted."""
    found = rig.server.get(PODS, pod["metadata"]["name"], namespace=pod["metadata"]["namespace"])
    found["metadata"]["labels"] = labels
    found["status"]["initContainerStatuses"][0]["state"] = {"running": {"startedAt": started}}
    rig.server.put(PODS, found, namespace=pod["metadata"]["namespace"])


def gone_on(rig, target, pod):
    """Do what the waiting container does when it has seen its file."""
    shutil.rmtree(target / ".velero")
    rig.let_waiter_end(pod)


def restored_pod(rig, **pod):
    source, path = rig.pod()
    (path / "a").write_bytes(b"x")
    path.chmod(pod.pop("mode", 0o755))
    agent = rig.agent()
    snapshot = rig.done_backup(source)["snapshotID"]
    back, target = rig.waiting_pod(**pod)
    name = rig.restore(back, snapshot)
    assert rig.wait_phase(PVR, name)["phase"] == "Completed"
    gone_on(rig, target, back)
    return agent, back, target, name


def test_pod_that_waits_again_after_a_boot_is_let_go_on_once_for_each_start(rig):
    _agent, back, target, name = restored_pod(rig)
    (target / "written-since").write_bytes(b"y")
    boot(rig, back)
    wait_for((target / ".velero" / RESTORE_UID).is_file)
    wait_for(lambda: ANNOTATION_TOLD_AGAIN in rig.get(PVR, name)["metadata"].get("annotations", {}))
    # It has removed the file and not ended yet: another one would stay in the volume.
    shutil.rmtree(target / ".velero")
    before = len(rig.server.seen)
    boot(rig, back, touched="1")
    wait_for(lambda: any(one.name == name and one.verb == "get" for one in list(rig.server.seen)[before:]))
    rig.let_waiter_end(back)
    time.sleep(0.3)
    assert not (target / ".velero").exists() and (target / "written-since").read_bytes() == b"y"
    boot(rig, back, started="2099-01-02T00:00:00Z")
    wait_for((target / ".velero" / RESTORE_UID).is_file)
    assert rig.status(PVR, name)["phase"] == "Completed"
    wait_for(lambda: [one["count"] for one in rig.events(name, "WaitsAgain")] in ([2], [1, 1]))


def test_pod_that_booted_while_no_agent_ran_is_let_go_on_by_the_next(rig):
    agent, back, target, _name = restored_pod(rig, mode=0o700, security={"runAsUser": os.geteuid() + 1000})
    wait_for(lambda: stat.S_IMODE(target.stat().st_mode) == 0o700)
    agent.kill()
    boot(rig, back)
    rig.agent()
    wait_for((target / ".velero" / RESTORE_UID).is_file)
    assert stat.S_IMODE(target.stat().st_mode) == 0o701
    gone_on(rig, target, back)
    wait_for(lambda: stat.S_IMODE(target.stat().st_mode) == 0o700)


def test_pod_goes_on_waiting_for_what_lay_in_memory(rig):
    volumes = [{"name": "data", "emptyDir": {"medium": "Memory"}}]
    _agent, back, target, name = restored_pod(rig, volumes=volumes)
    boot(rig, back)
    (event,) = wait_for(lambda: rig.events(name, "WaitsAgain"))
    assert event["type"] == "Warning" and event["message"].endswith("; delete the pod and restore again")
    boot(rig, back, touched="1")
    wait_for(lambda: ANNOTATION_TOLD_AGAIN in rig.get(PVR, name)["metadata"].get("annotations", {}))
    time.sleep(0.3)
    assert [one["count"] for one in rig.events(name, "WaitsAgain")] == [1] and not (target / ".velero").exists()


def test_root_that_the_pod_changed_since_is_left(volume):
    volume.chmod(0o750)
    assert not restore_wait.close_root(path_of(volume), 0o700)
    assert stat.S_IMODE(volume.stat().st_mode) == 0o750


@needs(os.geteuid() == 0, "only root gives files away: run as root")
def test_folder_is_the_containers_and_the_file_is_ours(volume):
    volume.chmod(0o777)
    restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=False, owner=1000)
    assert os.lstat(volume / ".velero").st_uid == 1000
    assert os.lstat(volume / ".velero" / RESTORE_UID).st_uid == 0
    assert restore_wait.has_done_file(path_of(volume), RESTORE_UID)
    # What the container does, as its user, who need not reach the folders above.
    root = os.open(volume, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(1000)
            os.setuid(1000)
            os.fchdir(root)
            os.unlink(f".velero/{RESTORE_UID}")
            os.rmdir(".velero")
            os._exit(0)
        finally:
            os._exit(1)
    os.close(root)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.listdir(volume) == []


def test_only_this_restores_file_is_taken_away(volume):
    os.utime(volume, ns=(1_000_000_001, 2_000_000_003))
    assert not restore_wait.remove_done_file(path_of(volume), RESTORE_UID)
    restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=False)
    other = volume / ".velero" / "another-restore"
    other.touch()
    assert not restore_wait.remove_done_file(path_of(volume), RESTORE_UID)
    assert os.listdir(volume / ".velero") == ["another-restore"]
    other.unlink()
    # What a container leaves that may write the folder and not the root.
    assert restore_wait.remove_done_file(path_of(volume), RESTORE_UID) and os.listdir(volume) == []
    os.utime(volume, ns=(1_000_000_001, 2_000_000_003))
    restore_wait.write_done_file(path_of(volume), RESTORE_UID, open_to_others=False)
    assert restore_wait.remove_done_file(path_of(volume), RESTORE_UID)
    assert os.listdir(volume) == [] and os.stat(volume).st_mtime_ns == 2_000_000_003


@pytest.mark.parametrize("trick", ["link out", "link inside", "done file is a directory"])
def test_tricks_are_not_taken_away(volume, trick):
    TRICKS[trick](volume)
    assert not restore_wait.remove_done_file(path_of(volume), RESTORE_UID)
    assert (volume.parent / "outside" / "canary").read_text() == "alive"


def test_folder_that_the_container_cannot_remove_goes_when_it_has_ended(rig):
    pod, path = rig.pod()
    (path / "a").write_bytes(b"x")
    path.chmod(0o755)
    rig.agent()
    snapshot = rig.done_backup(pod)["snapshotID"]
    back, target = rig.waiting_pod(security={"runAsUser": os.geteuid() + 1000})
    name = rig.restore(back, snapshot)
    assert rig.wait_phase(PVR, name)["phase"] == "Completed"
    assert rig.get(PVR, name)["metadata"]["annotations"][ANNOTATION_WAIT_FOLDER] == "remove"
    assert (target / ".velero" / RESTORE_UID).is_file()
    rig.let_waiter_end(back)
    wait_for(lambda: not (target / ".velero").exists())
    wait_for(lambda: ANNOTATION_WAIT_FOLDER not in rig.get(PVR, name)["metadata"].get("annotations", {}))
    assert rig.status(PVR, name)["phase"] == "Completed"
