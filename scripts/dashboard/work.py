"""What agent and server do while they are scraped: three volumes backed up, again after a change, one lost under its backup, one restored; maintenance and
verification meanwhile.

Promises: all of it is the real work of real processes on the embedded API server, as in `make demo`. One backup fails, and is to fail; anything else that
does not end well raises.

Does not know: Prometheus, nor the dashboard.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from longshore.kube.resource import Resource
from scripts.demo.cluster import PVBS, PVRS, Cluster, Pod
from scripts.demo.data import change, make_volume
from scripts.demo.folder import DemoError

__all__ = ["SERVER_OPTIONS", "fill", "work"]

# So short that each comes to pass while the picture is taken.
SERVER_OPTIONS = (
    "--maintenance=server",
    "--default-repo-maintain-frequency=30s",
    "--default-verify-frequency=45s",
    "--store-validation-frequency=10s",
)
_UPLOADS, _UPLOAD_BYTES = 24, 16 << 20
_LONGEST_SECONDS = 300.0
_PAUSE_SECONDS = 6.0
_FINAL = frozenset({"Completed", "Failed", "Canceled"})
Say = Callable[[str], None]


def fill(cluster: Cluster) -> dict[str, Pod]:
    """Start three pods and fill their volumes; gives the pods by their claims."""
    names = ("database", "uploads", "cache")
    pods = {name: cluster.start_pod(f"{name}-0", restore_wait=False, claim=name) for name in names}
    make_volume(pods["database"].volume, lambda _: None)
    _upload(pods["uploads"], random.Random(1), count=_UPLOADS)  # noqa: S311 - contents, not keys
    _upload(pods["cache"], random.Random(2), count=2)  # noqa: S311 - contents, not keys
    return pods


def work(cluster: Cluster, pods: dict[str, Pod], say: Say, *, lost: Path, seconds: float) -> None:
    """Do it.

    Args:
        cluster: with an agent and a server at work.
        pods: as `fill` made them.
        say: told each step.
        lost: where the volumes go that are lost.
        seconds: for how long at least.
    """
    ends = time.monotonic() + seconds
    chance = random.Random(7)  # noqa: S311 - contents, not keys
    time.sleep(_PAUSE_SECONDS)
    say("first backups")
    first = _back_up(cluster, "first", pods)
    _expect(first, {"database": "Completed", "uploads": "Completed", "cache": "Completed"})
    time.sleep(_PAUSE_SECONDS)

    say("one per cent of the database changes, the cache is lost under its backup")
    change(pods["database"].volume)
    _upload(pods["uploads"], chance, count=4)
    pods["cache"].volume.rename(lost / "cache")
    second = _back_up(cluster, "second", pods)
    _expect(second, {"database": "Completed", "uploads": "Completed", "cache": "Failed"})
    time.sleep(_PAUSE_SECONDS)

    say("the database is lost, and restored")
    cluster.lose_pod(pods["database"], keep_as=lost / "database")
    pods["database"] = _restore(cluster, snapshot_id=second["database"][1])
    number = 3
    while number == 3 or time.monotonic() < ends:
        say("another backup of what is there")
        _upload(pods["uploads"], chance, count=3)
        there = {name: pods[name] for name in ("database", "uploads")}
        _expect(_back_up(cluster, f"round-{number}", there), dict.fromkeys(there, "Completed"))
        number += 1
        time.sleep(2 * _PAUSE_SECONDS)


def _upload(pod: Pod, chance: random.Random, *, count: int) -> None:
    pod.volume.mkdir(exist_ok=True)
    for _ in range(count):
        (pod.volume / uuid.UUID(int=chance.getrandbits(128)).hex).write_bytes(chance.randbytes(_UPLOAD_BYTES))


def _back_up(cluster: Cluster, name: str, pods: Mapping[str, Pod]) -> dict[str, tuple[str, str]]:
    """Back volumes up side by side; gives phase and snapshot of each."""
    for volume, pod in pods.items():
        cluster.back_up(f"{name}-{volume}", pod)
    return {volume: _ended(cluster, PVBS, f"{name}-{volume}") for volume in pods}


def _restore(cluster: Cluster, *, snapshot_id: str) -> Pod:
    pod = cluster.start_pod("database-0", restore_wait=True, claim="database")
    pod.volume.mkdir(mode=0o755)
    restore_uid = str(uuid.uuid4())
    cluster.restore("restored-database", pod, snapshot_id=snapshot_id, restore_uid=restore_uid)
    _expect({"database": _ended(cluster, PVRS, "restored-database")}, {"database": "Completed"})
    cluster.let_pod_go_on(pod, restore_uid)
    return pod


def _ended(cluster: Cluster, resource: Resource, name: str) -> tuple[str, str]:
    ends = time.monotonic() + _LONGEST_SECONDS
    while True:
        status = cluster.look(resource, name).get("status") or {}
        if status.get("phase") in _FINAL:
            return str(status["phase"]), str(status.get("snapshotID", ""))
        if time.monotonic() > ends:
            raise DemoError(
                f"it has not ended within {_LONGEST_SECONDS:.0f} s: {resource.kind} {name}, phase={status.get('phase')}",
                f"see {cluster.folder / 'node-agent.log'}",
            )
        time.sleep(0.2)


def _expect(found: Mapping[str, tuple[str, str]], wanted: Mapping[str, str]) -> None:
    got = {name: phase for name, (phase, _) in found.items()}
    if got != dict(wanted):
        raise DemoError(f"jobs did not end as they had to: ended={got}, expected={dict(wanted)}", "see the agent's log")
