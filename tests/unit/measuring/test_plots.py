"""What the pictures and the absolute figures are drawn from: scales become points, stages add up, and what was not measured says so."""

import dataclasses

import pytest
from benches.volume import absolute, plots
from benches.volume.keep import Keep
from tests.unit.measuring.runs import SETTING, made_up_run

STAGES = {
    "stat": 2.0,
    "open": 5.0,
    "read": 0.2,
    "cut": 0.1,
    "hash": 0.3,
    "zstd": 1.5,
    "zstd 1": 2.0,
    "zstd -3": 1.0,
    "seal": 0.1,
    "unseal": 0.1,
    "unzip": 0.4,
    "write": 0.1,
}


def at_scale(scale, wall, files, **more):
    run = made_up_run("longshore", wall, setting=dataclasses.replace(SETTING, scale=scale, **more))
    return dataclasses.replace(run, notes=run.notes | {"data": f"{files} files, 99 bytes"})


def test_each_scale_is_a_point_of_the_newest_sources():
    runs = [at_scale(1.0, 9.0, 1000, subject="old"), at_scale(0.1, 1.0, 100), at_scale(1.0, 8.0, 1000)]
    [ours, *_] = plots.curves(runs, lambda run: plots.amounts(run)[0], lambda run: run.figures["wall_seconds"])
    assert (ours.name, ours.points) == ("longshore", [(100, 1.0), (1000, 8.0)])


def test_the_limit_adds_its_stages_up():
    found = plots.limit_seconds(STAGES, 1_000_000, 1 << 30)
    assert found["files"] == pytest.approx(10.0)
    assert sum(found.values()) == pytest.approx(10.0 + 0.2 + 0.1 + 0.3 + 1.5 + 0.1 + 0.1 + (0.1 + 0.4 + 0.3))
    assert "check" not in plots.limit_seconds(STAGES, 1, 1, check=False)


def test_pictures_are_drawn_with_and_without_runs(tmp_path):
    plots.draw(tmp_path / "none", tmp_path / "a")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert "not measured yet" in (tmp_path / "a/cost-by-stage.svg").read_text()
    limit = dataclasses.replace(made_up_run("limit", 1.0, step="1 core"), figures=STAGES)
    Keep("first-real", tmp_path / "m").add([limit, made_up_run("longshore", 4.0), made_up_run("restic", 9.0)])
    plots.draw(tmp_path / "m", tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir()} == names
    assert "9.00 s" in (tmp_path / "b/cost-by-stage.svg").read_text()


def test_absolute_figures_say_what_was_not_measured(tmp_path):
    lines = absolute.lines(tmp_path)
    assert all(line.endswith("not measured |") for line in lines[2:])
    assert len(lines) == 2 + len(absolute.FIGURES)


@pytest.mark.parametrize(
    ("value", "scale", "word"), [(0.1, 1.0, "reached"), (0.2, 1.0, "above"), (0.1, 0.5, "only at scale 0.5")]
)
def test_absolute_figures_are_held_against_their_limit(tmp_path, value, scale, word):
    run = made_up_run("longshore", 1.0, setting=dataclasses.replace(SETTING, scale=scale), value=value)
    Keep("absolute-help", tmp_path).add([run])
    assert absolute.lines(tmp_path)[-1].endswith(f"| {word} |")


def test_memory_is_the_largest_of_the_rows_that_measured_it(tmp_path):
    Keep("first-small", tmp_path).add([made_up_run("longshore", 1.0), made_up_run("kopia", 1.0, anon_mib=900.0)])
    Keep("unchanged", tmp_path).add([made_up_run("longshore", 1.0, anon_mib=95.0)])
    assert absolute.value(absolute.named("absolute-memory-backup"), tmp_path) == (85.0, 1.0)


def test_memory_of_the_agent_is_what_its_start_measured(tmp_path):
    Keep("absolute-agent", tmp_path).add([made_up_run("longshore", 1.0, value=1.0, anon_mib_ready=43.0)])
    assert absolute.value(absolute.named("absolute-agent-memory"), tmp_path) == (43.0, 1.0)
