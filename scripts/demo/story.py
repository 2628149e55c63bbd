"""The story, step by step: a volume, two backups, its loss, two restores, and what the reader can do next.

Promises: every figure is measured in this run: counts and rates as the agent wrote them into the custom resources, sizes of the repository from its
files, equality by the comparer of tests/oracle, which shares no code with the engine. A single difference makes the exit code 1. The commands shown
at the end have been run.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text
from tests.oracle.compare import compare_and_count

from longshore.cli.output.human import count, duration, plural, printable, ratio, size
from longshore.kube.resource import JsonObject, Resource
from scripts.demo.cluster import APP_NAMESPACE, PVBS, PVRS, ROOT, Cluster, Pod, running_cluster
from scripts.demo.data import Volume, change, copy_source, make_volume, measure
from scripts.demo.folder import DemoError, Folder, room_of_tree, size_of_tree
from scripts.demo.screen import Screen, Tracker, arrows

__all__ = ["tell"]

_CLAIM = "database-0"
_STALLED_SECONDS = 180.0
_LOOK_SECONDS = 0.1
_SHOWN_DIFFERENCES = 10


@dataclass(slots=True)
class _Row:
    """One line of the summary."""

    what: str
    seconds: float
    size_bytes: int
    read_bytes: int | None = None
    stored_bytes: int | None = None
    rate: int = 0
    result: str = ""


@dataclass(slots=True)
class _Told:
    """What has come out so far."""

    rows: list[_Row] = field(default_factory=list)
    differences: int = 0


def tell(screen: Screen, folder: Folder, *, source: Path | None, real: bool) -> int:
    """Tell it.

    Args:
        screen: where to.
        folder: whose contents are wiped first.
        source: a directory whose copy is the volume; None makes one.
        real: on the real kube-apiserver.

    Returns:
        0 when everything came back, 1 when anything differs.
    """
    started = time.monotonic()
    screen.opening(
        "Longshore: a pod's volume, out and back",
        "A node agent backs a volume up twice into an encrypted, deduplicated repository. Then the volume is lost, and restored; and once "
        "more in a new, empty cluster that has nothing but the exported key. Each time every byte and every attribute is compared by a "
        "program that shares no code with the one that made the backup.",
    )
    held = folder.holds_something()
    folder.take()
    if held:
        screen.say(f"{folder.path} holds an earlier run of this demo: wiped.", style="dim")
    folder.wipe()
    told = _Told()
    snapshot_id = _first_cluster(screen, folder, told, source=source, real=real)
    _second_cluster(screen, folder, told, snapshot_id=snapshot_id, real=real)
    if told.differences:
        screen.failure(
            f"what was restored differs from what was backed up: differences={told.differences}",
            f"both trees are in {folder.path}; compare them with tests/oracle/compare.py",
        )
        return 1
    _without_cluster(screen, folder)
    folder.tidy("reference", "cluster-1/pods", "cluster-2/pods")
    _summary(screen, folder, told, seconds=time.monotonic() - started)
    return 0


def _first_cluster(screen: Screen, folder: Folder, told: _Told, *, source: Path | None, real: bool) -> str:
    screen.step(1, "A cluster with one node")
    with running_cluster(folder.path / "cluster-1", real=real) as cluster:
        cluster.install(folder.store)
        screen.good(f"{cluster.server} at work, with Velero's custom resources")
        with cluster.agent() as seconds:
            screen.good(f"longshore node-agent ready in {duration(seconds)}, a process of its own")
            pod = cluster.start_pod("database-0", restore_wait=False, claim=_CLAIM)

            screen.step(2, "A volume of real files" if source is None else f"A copy of {source}")
            volume = _fill(screen, folder, pod, source)

            screen.step(3, "First backup")
            first = _back_up(screen, folder, told, cluster, pod, name="first")
            _say_ratio(screen, told.rows[-1], volume)

            screen.step(4, "One per cent changes, second backup")
            changed = change(pod.volume)
            screen.say(
                f"Written into {plural(changed.files, 'file')} of {size(changed.bytes)}"
                + "".join(f", {one}" for one in changed.names)
            )
            second = _back_up(screen, folder, told, cluster, pod, name="second")
            if second == first:
                raise DemoError(f"the second backup gave the first one's snapshot: {second}")
            row = told.rows[-1]
            screen.good(
                f"only what changed was read ({size(row.read_bytes or 0)} of {size(row.size_bytes)}), "
                f"only what is new was stored ({size(row.stored_bytes or 0)})"
            )

            screen.step(5, "The volume is lost, and restored")
            cluster.lose_pod(pod, keep_as=folder.reference)
            screen.say("Pod and volume deleted. A new pod comes, held by its init container restore-wait.")
            _restore(screen, folder, told, cluster, name="restored", snapshot_id=second)
            _export_key(screen, folder, cluster)
    return second


def _second_cluster(screen: Screen, folder: Folder, told: _Told, *, snapshot_id: str, real: bool) -> None:
    screen.step(6, "The whole cluster is lost")
    with running_cluster(folder.path / "cluster-2", real=real) as cluster:
        cluster.install(folder.store)
        cluster.lay_down_key(folder.recovery_key.read_bytes())
        screen.say(
            "A second API server, empty but for the storage location and the exported key, and an agent without cache."
        )
        with cluster.agent():
            _restore(screen, folder, told, cluster, name="elsewhere", snapshot_id=snapshot_id)


def _fill(screen: Screen, folder: Folder, pod: Pod, source: Path | None) -> Volume:
    with screen.track("Copying") as tracker:

        def report(done: int) -> None:
            tracker.done = done
            screen.refresh()

        if source is None:
            left_out = make_volume(pod.volume, report)
        else:
            # The copy, both restored volumes, and the repository.
            folder.check_room(4 * room_of_tree(source))
            left_out = copy_source(source, pod.volume, apart_from=folder.path)
    volume = measure(pod.volume)
    screen.good(
        f"{plural(volume.files, 'file')}, {plural(volume.directories, 'directory', 'directories')}, "
        f"{plural(volume.others, 'link or special file', 'links and special files')}: {size(volume.bytes)}, "
        f"{size(volume.room)} on the disk"
    )
    if source is None:
        screen.say(
            "Python's library and programs of this machine, an SQLite database, a sparse file, hard links, symlinks, a FIFO, "
            "ACLs and extended attributes, names of any bytes"
        )
    for one in left_out:
        screen.say(f"left out: {printable(one)}", style="yellow")
    return volume


def _back_up(screen: Screen, folder: Folder, told: _Told, cluster: Cluster, pod: Pod, *, name: str) -> str:
    repository = folder.repository(APP_NAMESPACE)
    before = size_of_tree(repository)

    def look(tracker: Tracker) -> None:
        tracker.beside = f"repository {size(size_of_tree(repository))}"

    with screen.track(f"PodVolumeBackup {name}") as tracker:
        cluster.back_up(name, pod)
        tracker.enter("New")
        seen = _follow(screen, tracker, cluster, PVBS, name, look)
    status = _ended_well(seen, tracker)
    stored = size_of_tree(repository) - before
    progress = status.get("progress") or {}
    row = _Row(
        f"{name} backup",
        tracker.seconds,
        int(progress.get("totalBytes", 0)),
        int(status.get("incrementalBytes", 0)),
        stored,
        int(progress.get("bytesPerSecond", 0) or 0),
        str(status["snapshotID"]),
    )
    told.rows.append(row)
    screen.good(
        f"PodVolumeBackup {arrows(tracker.phases)} in {duration(tracker.seconds)}: read {size(row.read_bytes or 0)}, "
        f"stored {size(stored)}{_rate(row)}"
    )
    screen.say(f"snapshot {row.result}", style="dim")
    if message := status.get("message"):
        screen.say(printable(str(message)), style="yellow")
    return row.result


def _say_ratio(screen: Screen, row: _Row, volume: Volume) -> None:
    smaller = ratio(volume.room, row.stored_bytes or 0)
    screen.good(
        f"encrypted, deduplicated, compressed: the repository is {smaller} times smaller than the volume on the disk"
    )


def _restore(screen: Screen, folder: Folder, told: _Told, cluster: Cluster, *, name: str, snapshot_id: str) -> None:
    pod = cluster.start_pod("database-0", restore_wait=True, claim=_CLAIM)
    pod.volume.mkdir(mode=0o755)
    restore_uid = str(uuid.uuid4())
    expected = room_of_tree(folder.reference)

    def look(tracker: Tracker) -> None:
        tracker.done, tracker.total = min(room_of_tree(pod.volume), expected), expected

    with screen.track(f"PodVolumeRestore {name}") as tracker:
        cluster.restore(name, pod, snapshot_id=snapshot_id, restore_uid=restore_uid)
        tracker.enter("New")
        seen = _follow(screen, tracker, cluster, PVRS, name, look)
    status = _ended_well(seen, tracker)
    progress = status.get("progress") or {}
    row = _Row(
        f"restore ({name})",
        tracker.seconds,
        int(progress.get("totalBytes", 0)),
        rate=int(progress.get("bytesPerSecond", 0) or 0),
    )
    told.rows.append(row)
    screen.good(f"PodVolumeRestore {arrows(tracker.phases)} in {duration(tracker.seconds)}{_rate(row)}")
    if message := status.get("message"):
        screen.say(printable(str(message)), style="yellow")
    if os.geteuid() != 0:
        screen.say("In a cluster the agent is root. Here it is you, so all files were yours before and are yours now.")
    cluster.let_pod_go_on(pod, restore_uid)
    with screen.track("Comparing every byte and attribute"):
        differences, counts = compare_and_count(folder.reference, pod.volume)
    told.differences += len(differences)
    if counts.entries < 2:
        raise DemoError("there was nothing to compare")
    if differences:
        screen.bad(plural(len(differences), "difference"))
        for one in differences[:_SHOWN_DIFFERENCES]:
            screen.bad(str(one))
        row.result = plural(len(differences), "difference")
        return
    row.result = "identical"
    screen.good(
        f"identical: {count(counts.entries)} entries, {size(counts.bytes)}, {plural(counts.hard_link_groups, 'hard-link group')}, "
        f"{plural(counts.xattrs, 'extended attribute')}, {plural(counts.holes, 'hole')}"
    )


def _follow(
    screen: Screen, tracker: Tracker, cluster: Cluster, resource: Resource, name: str, look: object
) -> JsonObject:
    """Watch an object until its phase is final; nothing moving for a long time is a failure."""
    assert callable(look)
    moved, last = time.monotonic(), ""
    while True:
        seen = cluster.look(resource, name)
        status = seen.get("status") or {}
        phase = status.get("phase") or "New"
        tracker.enter(phase)
        progress = status.get("progress") or {}
        if progress.get("totalBytes"):
            tracker.done, tracker.total = int(progress.get("bytesDone", 0)), int(progress["totalBytes"])
        look(tracker)
        if phase in {"Completed", "Failed", "Canceled"}:
            return seen
        now = f"{phase} {tracker.done} {tracker.beside}"
        if now != last:
            moved, last = time.monotonic(), now
        elif time.monotonic() - moved > _STALLED_SECONDS:
            raise DemoError(
                f"nothing has moved for {_STALLED_SECONDS:.0f} s: {resource.kind} {name}, phase={phase}",
                f"see {cluster.folder / 'node-agent.log'}",
            )
        screen.refresh()
        time.sleep(_LOOK_SECONDS)


def _ended_well(seen: JsonObject, tracker: Tracker) -> JsonObject:
    status: JsonObject = seen["status"]
    if status["phase"] != "Completed":
        raise DemoError(
            f"{tracker.title} is {status['phase']}: {status.get('message', '')}", "see the agent's log in demo-data"
        )
    return status


def _export_key(screen: Screen, folder: Folder, cluster: Cluster) -> None:
    """Take a key out of the cluster, by the command an operator would use; the cluster's own is only on the disk meanwhile."""
    own = folder.path / "cluster.key"
    own.touch(mode=0o600)
    own.write_bytes(cluster.root_key())
    try:
        _longshore(folder, "repo", "key", "export", str(folder.recovery_key), key=own)
    finally:
        own.unlink()
    screen.good(f"key exported to {_here(folder.recovery_key)}: it and the repository are all that a restore needs")


def _without_cluster(screen: Screen, folder: Folder) -> None:
    screen.step(7, "The same repository without any cluster")
    for words in (("volume", "list"), ("volume", "ls", "latest")):
        screen.command(_shown(folder, *words))
        screen.output(_longshore(folder, *words))


def _longshore(folder: Folder, *words: str, key: Path | None = None) -> str:
    """Run a command as shown."""
    command = [str(Path(sys.executable).parent / "longshore"), *words, *_options(folder, key)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LONGSHORE_")}
    env |= {"XDG_CACHE_HOME": str(folder.path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=env)
    if done.returncode != 0:
        raise DemoError(
            f"a command failed: {_shown(folder, *words)}, exit_code={done.returncode}\n{done.stderr.strip()}"
        )
    return done.stdout


def _options(folder: Folder, key: Path | None = None) -> list[str]:
    return ["--repository", f"file://{folder.repository(APP_NAMESPACE)}", "--key-file", str(key or folder.recovery_key)]


def _shown(folder: Folder, *words: str) -> str:
    key = _here(folder.recovery_key)
    repository = f"file://{folder.repository(APP_NAMESPACE)}"
    return " ".join([".venv/bin/longshore", *words, "--repository", shlex.quote(repository), "--key-file", key])


def _here(path: Path) -> str:
    """Shorten a path as seen from the clone, where make is called."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _rate(row: _Row) -> str:
    return f", {size(row.rate)}/s" if row.rate else ""


def _summary(screen: Screen, folder: Folder, told: _Told, *, seconds: float) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("", "volume", "read", "stored", "took", "result"):
        table.add_column(name, justify="left" if name in {"", "result"} else "right")
    for row in told.rows:
        table.add_row(
            row.what,
            size(row.size_bytes),
            "" if row.read_bytes is None else size(row.read_bytes),
            "" if row.stored_bytes is None else size(row.stored_bytes),
            duration(row.seconds),
            Text(row.result, style="bold green" if row.result == "identical" else "dim"),
        )
    screen.step(8, "All came back")
    screen.table(table)
    repository = folder.repository(APP_NAMESPACE)
    screen.show("")
    screen.good(f"Two backups, two restores, not one difference, in {duration(seconds)}.")
    screen.say(
        f"The repository stays, {size(size_of_tree(repository))}, in {_here(repository)}; its key is {_here(folder.recovery_key)}."
    )
    screen.say("Go on with it:")
    screen.command(_shown(folder, "volume", "list"))
    screen.command(_shown(folder, "volume", "ls", "latest"))
    screen.command(_shown(folder, "volume", "restore", "latest", _here(folder.path / "restored")))
    screen.say("Or without longshore, by one Python file that shares no code with it:")
    screen.command(
        f".venv/bin/python python/longshore/rescue.py --repository {_here(repository)} --key-file {_here(folder.recovery_key)} list"
    )
    screen.say(
        "make demo SOURCE=/some/dir does all this with a copy of your data, make demo CLUSTER=1 on the real kube-apiserver.",
        style="dim",
    )
