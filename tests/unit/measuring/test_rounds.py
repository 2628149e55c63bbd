"""Rounds: every contender once in each, resumed where they stopped, the worse profile left behind after the first."""

import dataclasses
from pathlib import Path

import pytest
from benches.volume import bench as measuring
from benches.volume.bench import Bench, Options, better, checked, groups, rounds, to_be_compared
from benches.volume.data import Data
from benches.volume.keep import Keep
from benches.volume.process import Cost
from benches.volume.rows import ROWS, Row
from benches.volume.scenarios import shared
from tests.unit.measuring.runs import SETTING, made_up_run


class FakeContender:
    def __init__(self, tool, profile, wall):
        self.tool, self.profile, self.wall = tool, profile, wall
        self.name = f"{tool}/{profile}"
        self.did = []

    def fresh(self):
        self.did.append("fresh")

    def backup(self, source):
        self.did.append("backup")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring.keep, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(measuring, "settle", lambda: None)
    row = Row("row", "a row", "first", lambda folder, scale: Data("data", 3, 4), {"restic": 2.0})
    found = Bench(row, Options(Path(tmp_path)), SETTING, Keep("row", tmp_path))
    found.versions = found.idle_mib = dict.fromkeys(("longshore", "restic"), 1.0)
    return found


def contenders(ours=1.0):
    return [
        FakeContender("longshore", "default", ours),
        FakeContender("restic", "default", 3.0),
        FakeContender("restic", "tuned", 2.0),
    ]


def go(bench, *, fail_in=None, ours=1.0):
    prepared = []

    def timed(_bench, one, round_):
        if fail_in == round_ and one.tool == "restic":
            raise KeyboardInterrupt
        return [("first", Cost(one.wall, one.wall, 1.0, 1.0), {})]

    rounds(bench, "", contenders(ours), prepared.append, timed)
    return prepared


def test_seven_rounds_of_short_runs_and_the_worse_profile_only_in_the_first(bench):
    assert go(bench) == list(range(7))
    runs = bench.kept.all()
    assert {(r.round, r.tool, r.profile) for r in runs if r.round == 0} == {
        (0, "longshore", "default"),
        (0, "restic", "default"),
        (0, "restic", "tuned"),
    }
    assert {(r.tool, r.profile) for r in runs if r.round > 0} == {("longshore", "default"), ("restic", "tuned")}
    assert len(runs) == 3 + 6 * 2


def test_three_rounds_of_long_runs(bench):
    assert go(bench, ours=61.0) == [0, 1, 2]


def test_an_interrupted_round_is_done_again_and_finished_ones_are_not(bench):
    with pytest.raises(KeyboardInterrupt):
        go(bench, fail_in=2)
    assert {run.round for run in bench.kept.all()} == {0, 1}
    assert go(bench) == [2, 3, 4, 5, 6]
    assert go(bench) == []


def test_order_differs_between_rounds(bench):
    go(bench)
    orders = {tuple(r.tool for r in bench.kept.all() if r.round == n) for n in range(1, 7)}
    assert len(orders) > 1


def test_a_profile_that_is_worse_in_both_is_left_and_one_that_saves_cpu_stays():
    runs = [made_up_run("restic", 10, cpu=20, profile="default"), made_up_run("restic", 9, cpu=20, profile="tuned")]
    assert better(runs, "restic") == {"tuned"}
    runs[0] = made_up_run("restic", 10, cpu=15, profile="default")
    assert better(runs, "restic") == {"default", "tuned"}
    assert better(runs, "borg") == set()


def test_groups_fit_on_the_disk():
    assert groups(["a", "b"], 4) == [("", ["a", "b"])]
    assert groups(["a", "b", "c"], 2) == [("a+b", ["a", "b"]), ("c", ["c"])]


def test_what_was_measured_needs_no_data_and_no_repositories(bench):
    go(bench)
    bench.source.rmdir()
    bench.ran = False
    assert go(bench) == []
    assert not bench.ran and not bench.source.exists()


def test_repositories_are_made_once_and_one_that_was_left_behind_catches_up(bench):
    changed = dataclasses.replace(bench.row, change=lambda folder, round_: None)
    each = contenders()

    def run(row):
        bench.row, bench.kept = row, Keep(row.name, bench.options.work)
        rounds(
            bench, "", each, lambda _: None, lambda _bench, one, _round: [("first", Cost(one.wall, one.wall, 1, 1), {})]
        )

    run(changed)
    assert [one.did for one in each] == [["fresh", "backup"]] * 3
    assert bench.behind == {"restic/default"}
    run(dataclasses.replace(bench.row, name="next"))
    assert [one.did for one in each] == [["fresh", "backup"], ["fresh", "backup", "backup"], ["fresh", "backup"]]


def test_each_tool_is_compared_once_and_ours_in_the_last_round_too(bench, monkeypatch):
    monkeypatch.setattr(measuring, "compare", lambda source, target: ["x"] if bench.row.name == "odd" else [])
    ours, restic, tuned = contenders()
    assert [checked(bench, one) for one in (ours, restic, tuned)] == [{"differences": 0.0}] * 2 + [{}]
    assert not any(to_be_compared(bench, one) for one in (ours, restic, tuned))
    bench.last_round = True
    assert to_be_compared(bench, ours) and not to_be_compared(bench, restic)
    bench.row = dataclasses.replace(bench.row, name="odd")
    with pytest.raises(AssertionError, match="restore differs"):
        checked(bench, ours)


def test_rows_that_go_on_from_the_same_repositories_share_them():
    names = [[row.name for row in together] for together in shared(ROWS)]
    assert ["open", "unchanged", "unchanged-chown", "unchanged-new-node", "changed-files"] in names
    assert sorted(name for together in names for name in together) == sorted(row.name for row in ROWS)
    assert ["changed-pages"] in names
