"""How each kind of row is measured.

A way prepares repositories, and then runs rounds: in each round every contender does the same work once, in an order
drawn anew, and the round's runs are kept together when it is over. Before each timed run what is dirty is on disk, and the source, the
repository and whatever else is read lies in the page cache (read through once). In its first round every contender also restores what it
stored and the tree is compared with its source by tests/oracle; ours must be equal in every attribute, and is compared again in the last.
Does not know what is measured (rows.py) nor any program's commands (peers.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.oracle.compare import compare

from benches.volume import data, keep
from benches.volume.disk import Disk
from benches.volume.keep import Keep, Run, Setting
from benches.volume.peers import PEERS, Contender, binary
from benches.volume.process import Cost, conditions, settle
from benches.volume.rows import Row
from benches.volume.s3 import SlowBucket

OURS = "longshore"
LIMIT = "limit"
# Where no filesystem can be made for a restore (disk.py).
REST_SECONDS = 65
_MANY_FILES = 1_000
_SHORT_SECONDS = 60.0
PAIRS_SHORT, PAIRS_LONG = 7, 3


class CannotMeasureError(Exception):
    """A row cannot be measured on this machine; the message says why. It never counts as reached."""


@dataclass(slots=True)
class Options:
    """What was asked for: where to work, at which share of the full size, how many pairs, against whom."""

    work: Path
    scale: float = 1.0
    pairs: int | None = None
    peers: tuple[str, ...] = PEERS
    profiles: tuple[str, ...] = ("default", "tuned")
    keep_folder: Path = keep.FOLDER


@dataclass(slots=True)
class Bench:
    """One row being measured."""

    row: Row
    options: Options
    setting: Setting
    kept: Keep
    made: data.Data = field(default_factory=lambda: data.Data("", 0, 0))
    versions: dict[str, str] = field(default_factory=dict)
    idle_mib: dict[str, float] = field(default_factory=dict)
    removed_at: float = 0.0
    disk: Disk | None = None
    slow: SlowBucket | None = None

    @property
    def source(self) -> Path:
        """What is backed up."""
        return self.options.work / "source"

    @property
    def target(self) -> Path:
        """What is restored to."""
        return self.options.work / "target" if self.disk is None else self.disk.target

    def make(self) -> None:
        """Make the data."""
        self.say("making data")
        self.source.mkdir()
        self.made = self.row.make(self.source, self.options.scale)
        settle()

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(f"{time.strftime('%H:%M:%S')} {self.row.name}: {text}", file=sys.stderr, flush=True)

    def fresh_target(self) -> None:
        """Take the target away, and make the disk anew that it lies on, where this machine lets us."""
        self.clear_target()
        disk = Disk(self.options.work)
        try:
            disk.renew(files=self.made.files, size_bytes=self.made.size_bytes)
            self.disk = disk
        except OSError as error:
            self.say(f"restoring beside the source: {error}")

    def clear_target(self) -> None:
        """Take the target away."""
        if self.disk is not None:
            self.disk.remove()
            self.disk = None
        if self.target.exists():
            _remove(self.target)
            if self.made.files > _MANY_FILES:
                os.sync()
                self.removed_at = time.monotonic()

    def rest(self) -> None:
        """Wait until inodes that were freed may be used again; only after many, and where the target is no disk of its own."""
        wait = self.removed_at + REST_SECONDS - time.monotonic()
        if self.removed_at and wait > 0:
            time.sleep(wait)

    def contenders(self, peers: Iterable[str]) -> list[Contender]:
        """Ours and each peer in each profile, with what they are and take when they do nothing."""
        bucket = None if self.slow is None else self.slow.bucket
        found = [Contender(OURS, "default", self.options.work, bucket=bucket)]
        found += [
            Contender(peer, profile, self.options.work, bucket=bucket)
            for peer in peers
            for profile in self.options.profiles
        ]
        for one in found:
            self.versions[one.tool] = one.version()
            self.idle_mib[one.tool] = one.idle().anon_mib
        return found

    def run(
        self, contender: Contender, step: str, group: str, round_: int, order: int, cost: Cost, **more: float
    ) -> Run:
        """Put one run into words."""
        figures = {
            "wall_seconds": round(cost.wall_seconds, 4),
            "cpu_seconds": round(cost.cpu_seconds, 4),
            "rss_mib": round(cost.rss_mib, 1),
            "anon_mib": round(cost.anon_mib, 1),
            "idle_anon_mib": round(self.idle_mib[contender.tool], 1),
            **more,
        }
        notes: dict[str, Any] = {
            "version": self.versions[contender.tool],
            "data": f"{self.made.files} files, {self.made.size_bytes} bytes",
            **{k: round(v, 2) for k, v in conditions().items()},
        }
        self.say(
            f"round {round_ + 1}: {contender.name} {step}: {cost.wall_seconds:.2f} s, CPU {cost.cpu_seconds:.2f} s"
        )
        return Run(
            self.setting, round_, contender.tool, contender.profile, group, step, order, keep.commit(), figures, notes
        )


def _remove(folder: Path) -> None:
    def writable(function: Callable[..., object], path: str, _error: BaseException) -> None:
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700, follow_symlinks=not os.path.islink(path))
        function(path)

    shutil.rmtree(folder, onexc=writable) if sys.version_info >= (3, 12) else shutil.rmtree(folder)


# --- rounds ------------------------------------------------------------------------------------------------------------------

Timed = Callable[[Bench, Contender, int], list[tuple[str, Cost, dict[str, float]]]]


def groups(peers: Iterable[str], at_once: int) -> list[tuple[str, list[str]]]:
    """Split peers into groups that fit on the disk together; one group of all has no name."""
    peers = list(peers)
    if len(peers) <= at_once:
        return [("", peers)]
    parts = [peers[at : at + at_once] for at in range(0, len(peers), at_once)]
    return [("+".join(part), part) for part in parts]


def better(runs: list[Run], peer: str) -> set[str]:
    """Profiles of a peer that go on after the first round: the faster one, and the one that takes less CPU when that is another by 5 %."""
    found = {run.profile: run.figures for run in runs if run.tool == peer}
    if not found:
        return set()
    wall = min(found, key=lambda p: found[p]["wall_seconds"])
    cpu = min(found, key=lambda p: found[p]["cpu_seconds"])
    return {wall, cpu} if found[cpu]["cpu_seconds"] < 0.95 * found[wall]["cpu_seconds"] else {wall}


def pairs_wanted(bench: Bench, runs: list[Run]) -> int:
    """Seven rounds when no run takes a minute, else three; or what was asked for."""
    if bench.options.pairs is not None:
        return bench.options.pairs
    return PAIRS_SHORT if all(run.figures["wall_seconds"] < _SHORT_SECONDS for run in runs) else PAIRS_LONG


def rounds(bench: Bench, group: str, contenders: list[Contender], prepare: Callable[[int], None], timed: Timed) -> None:
    """Run the rounds that are still missing, and keep each when it is over.

    Args:
        prepare: called with the round's number before it.
        timed: does the work of one contender; returns what was timed, step by step.
    """
    done = [run for run in bench.kept.of(bench.setting) if run.group == group and run.tool != LIMIT]
    round_ = 1 + max((run.round for run in done), default=-1)
    while round_ < 1 or round_ < pairs_wanted(bench, done):
        if round_ > 0:
            stay = {(peer, profile) for peer in PEERS for profile in better([r for r in done if r.round == 0], peer)}
            contenders = [c for c in contenders if c.tool == OURS or (c.tool, c.profile) in stay]
        prepare(round_)
        order = list(contenders)
        random.Random(f"{bench.row.name} {group} {round_}").shuffle(order)
        runs = []
        for place, contender in enumerate(order):
            for step, cost, more in timed(bench, contender, round_):
                runs.append(bench.run(contender, step, group, round_, place, cost, **more))
        bench.kept.add(runs)
        done += runs
        round_ += 1


def checked(bench: Bench, contender: Contender, round_: int, *, last: bool = False) -> dict[str, float]:
    """Compare the target with the source, where a round asks for it; returns the count of differences of a peer.

    Raises:
        AssertionError: ours differs.
    """
    if round_ > 0 and not last and contender.tool != OURS:
        return {}
    differences = compare(bench.source, bench.target)
    if differences and contender.tool == OURS:
        raise AssertionError(f"restore differs from its source: count={len(differences)}, first={differences[0]}")
    return {"differences": float(len(differences))}


def limits(bench: Bench) -> list[Run]:
    """Time the stages of a first backup alone, on the same data, on one core and on two."""
    data.warm(bench.source)
    settle()
    runs = []
    for threads, step in ((1, "1 core"), (2, "2 cores")):
        command = [*data.program("limit"), str(bench.source), str(bench.options.work), str(threads)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures = {name: float(value) for name, value in json.loads(answer).items()}
        runs.append(Run(bench.setting, 0, LIMIT, "default", "", step, 0, keep.commit(), figures))
        bench.say(f"stages alone, {step}: {answer.strip()}")
    return runs


def _restore_and_compare(bench: Bench, contender: Contender, round_: int) -> dict[str, float]:
    if round_ > 0:
        return {}
    bench.clear_target()
    contender.restore(bench.target, bench.source)
    found = checked(bench, contender, round_)
    bench.clear_target()
    return found


# --- ways ---------------------------------------------------------------------------------------------------------------------


def first(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Back up into an empty repository."""
    if not any(run.tool == LIMIT for run in bench.kept.of(bench.setting)):
        bench.kept.add(limits(bench))

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        one.fresh()
        data.warm(bench.source)
        settle()
        cost = one.backup(bench.source)
        more = {"stored_bytes": float(one.stored_bytes()), **_restore_and_compare(bench, one, round_)}
        one.remove()
        return [("first", cost, more)]

    rounds(bench, group, contenders, lambda _: None, timed)


def _with_repositories(bench: Bench, contenders: list[Contender]) -> None:
    for one in contenders:
        bench.say(f"preparing {one.name}")
        one.fresh()
        one.backup(bench.source)
    settle()


def again(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Back up once more, unchanged or after a change."""
    _with_repositories(bench, contenders)

    def prepare(round_: int) -> None:
        if bench.row.change is not None:
            bench.row.change(bench.source, round_)
        data.warm(bench.source)

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        before = one.stored_bytes()
        if bench.row.new_node:
            one.forget_local()
        settle()
        cost = one.backup(bench.source)
        return [("again", cost, {"stored_bytes": float(one.stored_bytes() - before)})]

    rounds(bench, group, contenders, prepare, timed)
    # The last state that was backed up, restored and compared: an unchanged run that missed a change would show here.
    for one in contenders:
        if one.tool != OURS:
            one.remove()
    ours = contenders[0]
    bench.clear_target()
    if bench.made.size_bytes > 7 * 10**9:
        bench.say("verifying instead of restoring, for want of room")
        ours.verify()
    else:
        ours.restore(bench.target, bench.source)
        checked(bench, ours, 0)
    bench.clear_target()


def restore(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore everything into an empty folder."""
    _with_repositories(bench, contenders)

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        bench.fresh_target()
        data.warm(one.repository)
        settle()
        if bench.disk is None:
            bench.rest()
        cost = one.restore(bench.target, bench.source)
        return [("restore", cost, checked(bench, one, round_))]

    rounds(bench, group, contenders, lambda _: None, timed)
    bench.clear_target()


def restore_alone(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore one large file; source, repository and target do not fit on the disk together, so the source goes and is made again."""

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        one.fresh()
        one.backup(bench.source)
        _remove(bench.source)
        settle()
        data.warm(one.repository)
        cost = one.restore(bench.target, bench.source)
        one.remove()
        bench.source.mkdir()
        bench.row.make(bench.source, bench.options.scale)
        found = {}
        if round_ == 0 or one.tool == OURS:
            # The folder itself was made anew, so its time is another.
            differences = [
                d for d in compare(bench.source, bench.target) if not (d.path == b"." and d.aspect == "mtime")
            ]
            if differences and one.tool == OURS:
                raise AssertionError(f"restore differs from its source: first={differences[0]}")
            found = {"differences": float(len(differences))}
        bench.clear_target()
        return [("restore", cost, found)]

    rounds(bench, group, contenders, lambda _: None, timed)


def restore_over(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore over a tree in which 1 % of the files are damaged."""
    _with_repositories(bench, contenders)
    contenders[0].restore(bench.target, bench.source)
    bench.removed_at = 0.0

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        data.damage(bench.target, round_)
        data.warm(bench.target)
        data.warm(one.repository)
        settle()
        cost = one.restore(bench.target, bench.source)
        found = checked(bench, one, round_)
        if found.get("differences"):
            # The next one must start from the same tree.
            contenders[0].restore(bench.target, bench.source)
        return [("restore", cost, found)]

    rounds(bench, group, contenders, lambda _: None, timed)
    bench.clear_target()


def restore_s3(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore from a bucket: stored without the wait of a network, restored with it."""
    _with_repositories(bench, contenders)

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        assert bench.slow is not None
        bench.clear_target()
        settle()
        before = bench.slow.requests()
        with bench.slow.waiting():
            cost = one.restore(bench.target, bench.source)
        requests = float(bench.slow.requests() - before)
        return [("restore", cost, {"requests": requests, **checked(bench, one, round_)})]

    rounds(bench, group, contenders, lambda _: None, timed)
    bench.clear_target()


def verify(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Read and check all that is stored; ours also by seals alone."""
    _with_repositories(bench, contenders)

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        data.warm(one.repository)
        settle()
        found = [("verify", one.verify(), {})]
        if one.tool == OURS:
            found.append(("tags", one.verify(tags_only=True), {}))
        return found

    rounds(bench, group, contenders, lambda _: None, timed)


def open_and_list(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Open a repository and list its snapshots."""
    _with_repositories(bench, contenders)

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        settle()
        return [("open", one.snapshots(), {})]

    rounds(bench, group, contenders, lambda _: None, timed)


WAYS: dict[str, Callable[[Bench, str, list[Contender]], None]] = {
    "first": first,
    "again": again,
    "restore": restore,
    "restore-alone": restore_alone,
    "restore-over": restore_over,
    "restore-s3": restore_s3,
    "verify": verify,
    "open": open_and_list,
}


def measure(row: Row, options: Options) -> None:
    """Measure a row, or what is missing of it.

    Raises:
        CannotMeasureError: this machine cannot.
    """
    if row.needs_root and os.geteuid() != 0:
        raise CannotMeasureError("only root may change owners")
    setting = Setting(keep.subject(), keep.machine(), options.scale)
    kept = Keep(row.name, options.keep_folder)
    bench = Bench(row, options, setting, kept)
    peers = [peer for peer in PEERS if peer in row.figures and peer in options.peers]
    for missing in [peer for peer in peers if binary(peer) is None]:
        bench.say(f"{missing} is not built and left out: tests/tools/build.sh {missing}")
        peers.remove(missing)
    try:
        bench.make()
        for group, members in groups(peers, row.peers_at_once):
            with ExitStack() as stack:
                if row.way == "restore-s3":
                    bench.slow = stack.enter_context(SlowBucket(options.work))
                contenders = bench.contenders(members)
                WAYS[row.way](bench, group, contenders)
                for one in contenders:
                    one.remove()
        kept.only(setting)
    finally:
        bench.clear_target()
        if bench.source.exists():
            _remove(bench.source)
