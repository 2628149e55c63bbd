"""The power of the node: what is gone when it goes, and what no machine keeps over a boot.

Promises: `end_all` ends every process of the node, containers too, and none can answer to the end of another, for all are frozen first. `clear` takes away
mounts, links, cgroups and folders in memory. What is elsewhere goes on: the test, and what the test started beside the node.

Does not know what a disk keeps: what was written and not yet synced is there afterwards, as on a machine that was reset and not cut off.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.node.room import CGROUP, remove_group

__all__ = ["clear", "end_all"]

_MEMORY = Path("/run")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GONE_SECONDS = 30.0


def end_all(daemons: set[int]) -> int:
    """End the node's processes; gives how many those were.

    Args:
        daemons: processes of the node among those that this one has started.
    """
    frozen: set[int] = set()
    while fresh := _of_node(daemons) - frozen:
        _signal(fresh, signal.SIGSTOP)
        frozen |= fresh
    _signal(frozen, signal.SIGKILL)
    ends = time.monotonic() + _GONE_SECONDS
    while left := _of_node(daemons):
        assert time.monotonic() < ends, f"processes of the node do not end: pids={left}"
        time.sleep(0.01)
    return len(frozen)


def clear(folder: Path, *, mounts_below: Sequence[Path], memory: Sequence[Path]) -> None:
    """Take away what a boot does.

    Args:
        folder: of the room; what says which boot this is lies there.
        mounts_below: where the node has mounted.
        memory: what lies in memory on a real node, beside all of /run.
    """
    while mounted := _mounted([*mounts_below, _MEMORY]):
        subprocess.run(["umount", mounted[-1]], check=True)
    for place in [*memory, *_MEMORY.iterdir()]:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    for link in _links():
        # Of a pair, the other end goes with it; and the kernel takes away those of a pod's network by itself, in its own time.
        subprocess.run(["ip", "link", "delete", link], check=False, stderr=subprocess.DEVNULL)
    group = os.environ[CGROUP].strip("/")
    for place in [*Path("/sys/fs/cgroup").glob(f"*/{group}/*/"), *Path("/sys/fs/cgroup").glob(f"{group}/*/")]:
        remove_group(place)
    told = folder / "boot_id"
    told.write_text(f"{uuid.uuid4()}\n")
    subprocess.run(["mount", "--bind", told, _BOOT_ID], check=True)


def _of_node(daemons: set[int]) -> set[int]:
    """All that run in the room but its first process, this one, whom it descends from, and whom it started beside the node."""
    parents = _parents()

    def line(pid: int) -> set[int]:
        found = set()
        while pid in parents:
            found.add(pid)
            pid = parents[pid]
        return found

    here = os.getpid()
    above = line(here) | {1}
    return {pid for pid in parents if pid not in above and (here not in (one := line(pid)) or one & daemons)}


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in ("Z", "X"):
                found[int(path.parent.name)] = int(parent)
    return found


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _mounted(below: Sequence[Path]) -> list[str]:
    """Mounts strictly below these, what lies on top last."""
    places = [
        line.split()[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return sorted(
        (one for one in places if any(top in Path(one).parents for top in below)), key=lambda one: one.count("/")
    )


def _links() -> list[str]:
    told = subprocess.run(["ip", "-o", "link", "show"], capture_output=True, text=True, check=True).stdout
    names = [line.split(": ")[1].partition("@")[0] for line in told.splitlines()]
    return [name for name in names if name != "lo"]
