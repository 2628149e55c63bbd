"""Rounds: every contender once in each, resumed where they stopped, the worse profile left behind after the first."""

from pathlib import Path

import pytest
from benches.volume import scenarios
from benches.volume.keep import Keep
from benches.volume.process import Cost
from benches.volume.rows import Row
from benches.volume.scenarios import Bench, Options, better, groups, rounds
from tests.unit.measuring.runs import SETTING, made_up_run


class FakeContender:
    def __init__(self, tool, profile, wall):
        self.tool, self.profile, self.wall = tool, profile, wall
        self.name = f"{tool}/{profile}"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(scenarios.keep, "commit", lambda: "0123456789ab")
    row = Row("row", "a row", "first", lambda folder, scale: None, {"restic": 2.0})
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
