"""How each kind of row is measured: what is prepared, and what every contender does in a round (bench.py).

Before each timed run what is dirty is on disk, and the source, the repository and whatever else is read lies in the page cache (read through
once). Rows that go on from the same repositories (`shared`) share them. Needs at most 20 GB at a time: where source, repository and target are
more than that together, the source goes before a restore and is made again. Does not know what is measured (rows.py) nor any program's
commands (peers.py).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from benches.volume import data, keep
from benches.volume.bench import (
    LIMIT,
    OURS,
    Bench,
    CannotMeasureError,
    Options,
    checked,
    groups,
    remove,
    rounds,
    to_be_compared,
)
from benches.volume.keep import Keep, Run, Setting
from benches.volume.peers import PEERS, Contender, binary
from benches.volume.process import Cost, settle
from benches.volume.rows import Row
from benches.volume.s3 import SlowBucket

# Of the 20 GB that a row may take, what data and repositories may; the rest is caches, and what is lost to blocks.
_ROOM_BYTES = 18 * 10**9


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


def _restore_and_compare(bench: Bench, contender: Contender) -> dict[str, float]:
    if not to_be_compared(bench, contender):
        return {}
    bench.clear_target()
    apart = 2 * bench.made.size_bytes + contender.stored_bytes() > _ROOM_BYTES
    if apart:
        remove(bench.source)
    contender.restore(bench.target, bench.source)
    if apart:
        contender.remove()
        bench.make()
    found = checked(bench, contender, made_again=apart)
    bench.clear_target()
    return found


# --- ways ---------------------------------------------------------------------------------------------------------------------


def first(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Back up into an empty repository."""
    if not any(run.tool == LIMIT for run in bench.kept.of(bench.setting)):
        bench.ready([])
        bench.kept.add(limits(bench))

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        one.fresh()
        data.warm(bench.source)
        settle()
        cost = one.backup(bench.source)
        more = {"stored_bytes": float(one.stored_bytes()), **_restore_and_compare(bench, one)}
        one.remove()
        return [("first", cost, more)]

    rounds(bench, group, contenders, lambda _: None, timed, repositories=False)


def again(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Back up once more, unchanged or after a change."""

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


def compare_last(bench: Bench, contenders: list[Contender]) -> None:
    """Restore and compare the last state that was backed up: an unchanged run that missed a change would show here."""
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
        bench.compared.clear()
        checked(bench, ours)
    bench.clear_target()


def restore(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore everything into an empty folder."""

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        bench.fresh_target()
        data.warm(one.repository)
        settle()
        if bench.disk is None:
            bench.rest()
        cost = one.restore(bench.target, bench.source)
        return [("restore", cost, checked(bench, one))]

    rounds(bench, group, contenders, lambda _: None, timed)
    bench.clear_target()


def restore_alone(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore one large file; source, repository and target do not fit on the disk together, so the source goes and is made again."""

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        one.fresh()
        one.backup(bench.source)
        remove(bench.source)
        settle()
        data.warm(one.repository)
        cost = one.restore(bench.target, bench.source)
        one.remove()
        bench.make()
        found = checked(bench, one, made_again=True)
        bench.clear_target()
        return [("restore", cost, found)]

    rounds(bench, group, contenders, lambda _: None, timed, repositories=False)


def restore_over(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore over a tree in which 1 % of the files are damaged."""

    def prepare(_: int) -> None:
        if not bench.target.exists():
            contenders[0].restore(bench.target, bench.source)
            bench.removed_at = 0.0

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        data.damage(bench.target, round_)
        data.warm(bench.target)
        data.warm(one.repository)
        settle()
        cost = one.restore(bench.target, bench.source)
        found = checked(bench, one)
        if one.tool in bench.differ:
            # The next one must start from the same tree.
            contenders[0].restore(bench.target, bench.source)
        return [("restore", cost, found)]

    rounds(bench, group, contenders, prepare, timed)
    bench.clear_target()


def restore_s3(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Restore from a bucket: stored without the wait of a network, restored with it."""

    def timed(bench: Bench, one: Contender, round_: int) -> list[tuple[str, Cost, dict[str, float]]]:
        assert bench.slow is not None
        bench.clear_target()
        settle()
        before = bench.slow.requests()
        with bench.slow.waiting():
            cost = one.restore(bench.target, bench.source)
        requests = float(bench.slow.requests() - before)
        return [("restore", cost, {"requests": requests, **checked(bench, one)})]

    rounds(bench, group, contenders, lambda _: None, timed)
    bench.clear_target()


def verify(bench: Bench, group: str, contenders: list[Contender]) -> None:
    """Read and check all that is stored; ours also by seals alone."""

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


# What goes on from repositories as they are and needs none of its own.
_SHARING = ("open", "again")


def shared(wanted: Iterable[Row]) -> list[list[Row]]:
    """Put rows together that can go on from the same repositories, those first that want them as they were made."""
    found: list[list[Row]] = []
    for row in wanted:
        for other in found:
            first = other[0]
            if (
                row.way in _SHARING
                and first.way in _SHARING
                and row.make is first.make
                and row.peers_at_once == first.peers_at_once
            ):
                other.append(row)
                break
        else:
            found.append([row])
    return [sorted(each, key=lambda row: row.way != "open") for each in found]


def measure(wanted: list[Row], options: Options) -> None:
    """Measure rows that share their repositories (`shared`), or what is missing of them.

    Raises:
        CannotMeasureError: this machine cannot.
    """
    if any(row.needs_root for row in wanted) and os.geteuid() != 0:
        raise CannotMeasureError("only root may change owners")
    setting = Setting(keep.subject(), keep.machine(), options.scale)
    first = wanted[0]
    bench = Bench(first, options, setting, Keep(first.name, options.keep_folder))
    peers = [peer for peer in PEERS if peer in options.peers and any(peer in row.figures for row in wanted)]
    for missing in [peer for peer in peers if binary(peer) is None]:
        bench.say(f"{missing} is not built and left out: tests/tools/build.sh {missing}")
        peers.remove(missing)
    try:
        for group, members in groups(peers, first.peers_at_once):
            with ExitStack() as stack:
                if first.way == "restore-s3":
                    bench.slow = stack.enter_context(SlowBucket(options.work))
                contenders = bench.contenders(members)
                bench.ran = False
                for row in wanted:
                    bench.row, bench.kept = row, Keep(row.name, options.keep_folder)
                    WAYS[row.way](bench, group, [c for c in contenders if c.tool == OURS or c.tool in row.figures])
                if bench.ran and any(row.way == "again" for row in wanted):
                    compare_last(bench, contenders)
                for one in contenders:
                    one.remove()
                bench.prepared.clear()
                if any(row.change is not None for row in wanted) and bench.source.exists():
                    # The next group's rounds begin where this one's did.
                    remove(bench.source)
        for row in wanted:
            Keep(row.name, options.keep_folder).only(setting)
    finally:
        bench.clear_target()
        if bench.source.exists():
            remove(bench.source)
