"""One row being measured: its data and repositories, its rounds, and the comparison of what was restored.

In each round every contender does the same work once, in an order drawn anew, and the round's runs are kept together when it is over; a
row that was interrupted goes on with the rounds that are missing. Data and repositories are made when a round needs them. In the first round
every tool also restores what it stored and the tree is compared with its source by tests/oracle; ours must be equal in every attribute, and is
compared again in the last. Does not know what a round does (scenarios.py).
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.oracle.compare import compare

from benches.volume import data, keep
from benches.volume.disk import Disk
from benches.volume.keep import Keep, Run, Setting
from benches.volume.peers import PEERS, Contender
from benches.volume.process import Cost, conditions, settle
from benches.volume.render import WITHOUT_CHECK
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
    compared: set[str] = field(default_factory=set)
    """Tools whose restore was compared with its source."""
    differ: set[str] = field(default_factory=set)
    """Those of them that did not bring everything back."""
    last_round: bool = False
    ran: bool = False
    """Whether a round was run: what had been measured before needs no data, and no comparison."""
    prepared: set[str] = field(default_factory=set)
    """Contenders whose repository holds a backup."""
    behind: set[str] = field(default_factory=set)
    """Those of them that did not see the last change of the source."""

    @property
    def source(self) -> Path:
        """What is backed up."""
        return self.options.work / "source"

    @property
    def target(self) -> Path:
        """What is restored to."""
        return self.options.work / "target" if self.disk is None else self.disk.target

    def ready(self, contenders: list[Contender]) -> None:
        """Make the data unless it is there, and a backup of it for each of these that has none of this state."""
        self.ran = True
        if not self.source.exists():
            self.say("making data")
            self.make()
            settle()
        for one in contenders:
            if one.name not in self.prepared:
                self.say(f"preparing {one.name}")
                one.fresh()
            if one.name not in self.prepared or one.name in self.behind:
                one.backup(self.source)
            self.prepared.add(one.name)
            self.behind.discard(one.name)
        settle()

    def make(self) -> None:
        """Make the data, for the first time or after it had to give way."""
        self.source.mkdir()
        self.made = self.row.make(self.source, self.options.scale)

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
            remove(self.target)
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
        if self.row.way == "first" and any(peer in WITHOUT_CHECK for peer in peers):
            found.append(Contender(OURS, "unchecked", self.options.work, options=("--verify-upload", "none")))
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


def remove(folder: Path) -> None:
    """Take a tree away, whatever its modes."""

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


def rounds(
    bench: Bench,
    group: str,
    contenders: list[Contender],
    prepare: Callable[[int], None],
    timed: Timed,
    *,
    repositories: bool = True,
) -> None:
    """Run the rounds that are still missing, and keep each when it is over.

    Args:
        prepare: called with the round's number before it.
        timed: does the work of one contender; returns what was timed, step by step.
        repositories: each begins with a repository that holds the source.
    """
    done = [run for run in bench.kept.of(bench.setting) if run.group == group and run.tool != LIMIT]
    round_ = 1 + max((run.round for run in done), default=-1)
    while round_ < 1 or round_ < pairs_wanted(bench, done):
        if round_ > 0:
            stay = {(peer, profile) for peer in PEERS for profile in better([r for r in done if r.round == 0], peer)}
            contenders = [c for c in contenders if c.tool == OURS or (c.tool, c.profile) in stay]
        bench.ready(contenders if repositories else [])
        bench.last_round = round_ > 0 and round_ + 1 == pairs_wanted(bench, done)
        prepare(round_)
        order = list(contenders)
        random.Random(f"{bench.row.name} {group} {round_}").shuffle(order)
        runs = []
        for place, contender in enumerate(order):
            for step, cost, more in timed(bench, contender, round_):
                runs.append(bench.run(contender, step, group, round_, place, cost, **more))
        if bench.row.change is not None:
            bench.behind |= bench.prepared - {one.name for one in contenders}
        bench.kept.add(runs)
        done += runs
        round_ += 1


def to_be_compared(bench: Bench, contender: Contender) -> bool:
    """Whether what this one restores now is to be compared: each tool once, ours also in the last round."""
    return contender.tool not in bench.compared or (contender.tool == OURS and bench.last_round)


def checked(bench: Bench, contender: Contender, *, made_again: bool = False) -> dict[str, float]:
    """Compare the target with the source, where that is due; returns the count of differences.

    Args:
        made_again: the source is not the folder that was backed up, so the time of the folder itself is another.

    Raises:
        AssertionError: ours differs.
    """
    if not to_be_compared(bench, contender):
        return {}
    bench.compared.add(contender.tool)
    differences = compare(bench.source, bench.target)
    if made_again:
        differences = [d for d in differences if not (d.path == b"." and d.aspect == "mtime")]
    if differences and contender.tool == OURS:
        raise AssertionError(f"restore differs from its source: count={len(differences)}, first={differences[0]}")
    if differences:
        bench.differ.add(contender.tool)
    return {"differences": float(len(differences))}
