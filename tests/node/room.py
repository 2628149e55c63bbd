"""Runs a command in a room of its own, in which a whole Kubernetes node may be built and of which nothing is left.

    python -m tests.node.room COMMAND…

The room is a set of namespaces (network, mounts, processes, host name, IPC) and one folder. In it only loopback is up; what daemons write below /etc, /opt,
/var/lib and /var/log goes into the folder, and /run is empty. The command finds the folder in LONGSHORE_NODE_ROOM and the room's cgroup in
LONGSHORE_NODE_CGROUP.

Promises: when the command ends, or this process dies however it dies, the kernel ends everything that was started in the room and takes its mounts, links
and network with it. This process then takes away what namespaces do not hold: cgroups, the folder, and the kernel's settings that a kubelet changes. Ctrl-C
is the command's to answer; SIGTERM is handed to it. Where no room can be made, because the machine does not let its root make namespaces, mounts or cgroups,
nothing is run, and a line that begins with `SKIPPED: ` says why: nobody may count that as a pass. With `CI=true` it is a failure, exit code 1.

Needs root. Does not know what runs in it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.held_folder import HeldFolder

__all__ = ["CGROUP", "FOLDER", "main", "remove_group"]

FOLDER = "LONGSHORE_NODE_ROOM"
CGROUP = "LONGSHORE_NODE_CGROUP"
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWPID, _CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
_PR_SET_PDEATHSIG = 1
_CGROUPS = Path("/sys/fs/cgroup")
# Overlaid, so that what is there can be read and what is written lands in the folder.
_WRITTEN = ("/etc", "/opt", "/var/lib", "/var/log")
# What a kubelet sets for the whole machine.
_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_GONE_SECONDS = 20.0


def main(command: Sequence[str]) -> int:
    """Run the command; returns its exit code, 128 + the signal's number when one ended it."""
    if os.geteuid() != 0:
        return _skip("namespaces and cgroups of a node are made by root only, run as root")
    held = HeldFolder("node")
    try:
        with _kept_settings(), _cgroups(held.path):
            return _run(command, held.path)
    except OSError as err:
        return _skip(f"error={err}")
    finally:
        held.remove()


def _skip(reason: str) -> int:
    is_failure = os.environ.get("CI") == "true"
    what = "error: what CI must have cannot be had" if is_failure else "SKIPPED"
    print(f"{what}: no room for a node can be made here, so nothing was run: {reason}", file=sys.stderr, flush=True)
    return 1 if is_failure else 0


def _run(command: Sequence[str], folder: Path) -> int:
    # Only children of this process become members of the new process namespace: the first of them is its process 1.
    _call("unshare", _CLONE_NEWPID)
    first = os.fork()
    if first == 0:
        with contextlib.suppress(BaseException):
            os._exit(_first_process(command, folder))
        os._exit(125)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGTERM))
    _, status = os.waitpid(first, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _first_process(command: Sequence[str], folder: Path) -> int:
    """Lay the room out, run the command, and reap whoever loses their parent meanwhile; when this ends the kernel ends all others."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWNET)
        _lay_out(folder)
    except (OSError, subprocess.CalledProcessError) as err:
        return _skip(f"error={err}")
    child = os.fork()
    if child == 0:
        try:
            os.execvpe(command[0], list(command), {**os.environ, FOLDER: str(folder), CGROUP: f"/{folder.name}"})
        finally:
            os._exit(127)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _lay_out(folder: Path) -> None:
    # Nothing comes in from the machine's mounts and nothing goes out; among those in the room mounts propagate, as a kubelet needs it.
    _words("mount", "--make-rprivate", "/")
    for place in _WRITTEN:
        if Path(place).is_dir():
            upper, work = (folder / "written" / f"{place.replace('/', '_')}.{kind}" for kind in ("upper", "work"))
            upper.mkdir(parents=True)
            work.mkdir()
            _words(
                "mount", "-t", "overlay", "-o", f"lowerdir={place},upperdir={upper},workdir={work}", "overlay", place
            )
    _words("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    _words("mount", "-t", "proc", "proc", "/proc")
    _words("mount", "--make-rshared", "/")
    _words("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/kernel/hostname").write_text("node-1")


@contextlib.contextmanager
def _kept_settings() -> Iterator[None]:
    places = [place for name in _SETTINGS if (place := Path("/proc/sys") / name).exists()]
    before = {place: place.read_text() for place in places}
    try:
        yield
    finally:
        for place, value in before.items():
            if place.read_text() != value:
                place.write_text(value)


@contextlib.contextmanager
def _cgroups(folder: Path) -> Iterator[None]:
    """Make a group of the folder's name in every hierarchy, and take it and all below it away; dead processes leave theirs a moment after their end.

    What a room left that was killed outright goes first; it is known by its folder, which the next room has taken away before.
    """
    hierarchies = [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else sorted(_CGROUPS.iterdir())
    hierarchies = [at for at in hierarchies if (at / "cgroup.procs").exists()]
    for stale in [
        one for at in hierarchies for one in at.glob("longshore-node-*") if not (folder.parent / one.name).exists()
    ]:
        remove_group(stale)
    places = [at / folder.name for at in hierarchies]
    try:
        for place in places:
            place.mkdir()
            _inherit_cpus(place)
        yield
    finally:
        ends = time.monotonic() + _GONE_SECONDS
        while left := [place for place in places if place.exists()]:
            for place in left:
                remove_group(place)
            if time.monotonic() > ends:
                print(f"warning: cgroups are left: places={left}", file=sys.stderr)
                break
            time.sleep(0.05)


def _inherit_cpus(place: Path) -> None:
    # In version 1 a new group has no processor and no memory node until somebody gives it some.
    for name in ("cpuset.cpus", "cpuset.mems"):
        above = place.parent / name
        if above.exists() and not (place / name).read_text().strip():
            (place / name).write_text(above.read_text())


def remove_group(place: Path) -> None:
    """Take a cgroup and those below it away, as far as no process is in them."""
    for folder, _, _ in os.walk(place, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _words(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
