"""The page's pictures, from kept runs: time and memory against number of files and against size, throughput and cost by stage.

A line has a point for each scale at which a row was measured (`make bench ONLY=first-small SCALE=0.1`). The stages are those that the
program `limit` of benches/micro timed alone on the same data in the same run. Promises a picture that says so where nothing was measured. Does
not draw (svg.py).
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from pathlib import Path

from benches.volume.bench import LIMIT
from benches.volume.keep import FOLDER, Keep, Run
from benches.volume.peers import ALL
from benches.volume.svg import Bar, Line, bars, lines

PLOTS = Path(__file__).with_name("plots")
GIB = float(1 << 30)
_DATA = re.compile(r"(\d+) files, (\d+) bytes")
# Bookkeeping a file that no stage holds: names, the tree's entry, its share of the cache.
BOOKKEEPING_MICROS = 3.0


def amounts(run: Run) -> tuple[int, int]:
    """Files and bytes that a run handled."""
    found = _DATA.match(run.notes["data"])
    return (int(found[1]), int(found[2])) if found else (0, 0)


def by_scale(runs: list[Run]) -> list[list[Run]]:
    """The newest runs of each scale on the machine that measured last, ascending by scale."""
    if not runs:
        return []
    machine = runs[-1].setting.machine
    newest = {run.setting.scale: run.setting for run in runs if run.setting.machine == machine}
    return [[run for run in runs if run.setting == newest[scale]] for scale in sorted(newest)]


def curves(runs: list[Run], x: Callable[[Run], float], y: Callable[[Run], float]) -> list[Line]:
    """One line a tool: at each scale the median of its better profile."""
    out = []
    for tool in ALL:
        points = []
        for group in by_scale(runs):
            mine = [run for run in group if run.tool == tool]
            medians = [
                statistics.median(y(run) for run in mine if run.profile == profile)
                for profile in {r.profile for r in mine}
            ]
            if medians:
                points.append((x(mine[0]), max(min(medians), 1e-3)))
        out.append(Line(tool, points))
    return out


def beyond_start(run: Run) -> float:
    """Anonymous memory beyond what the program takes for doing nothing, in MiB."""
    return max(run.figures["anon_mib"] - run.figures["idle_anon_mib"], 0.1)


def limit_seconds(stages: dict[str, float], files: int, size_bytes: int, *, check: bool = True) -> dict[str, float]:
    """CPU seconds that a first backup needs at least, by stage: what each kernel takes alone, and nothing for what lies between.

    Args:
        stages: what `limit` measured on one core.
        check: with what opening every pack again before it is sent adds.
    """
    gib = size_bytes / GIB
    out = {
        "files": files * (stages["stat"] + stages["open"] + BOOKKEEPING_MICROS) / 1e6,
        "read": stages["read"] * gib,
        "cut": stages["cut"] * gib,
        "hash": stages["hash"] * gib,
        "compress": stages["zstd"] * gib,
        "seal": stages["seal"] * gib,
        "write": stages["write"] * gib,
    }
    if check:
        out["check"] = (stages["unseal"] + stages["unzip"] + stages["hash"]) * gib
    return out


def _median(runs: list[Run], metric: str) -> float:
    return statistics.median(run.figures[metric] for run in runs)


def _stages(name: str, title: str, folder: Path) -> tuple[str, str]:
    runs = Keep(name, folder).newest()
    limits = {run.step: run.figures for run in runs if run.tool == LIMIT}
    ours = [run for run in runs if run.tool == "longshore"]
    if not ours or "1 core" not in limits:
        empty = bars(f"Cost by stage: {title}", "", "s", [])
        return empty, bars(f"Throughput by stage: {title}", "", "GB/s", [])
    files, size = amounts(ours[0])
    floor = limit_seconds(limits["1 core"], files, size)
    drawn = [Bar("the stages alone", floor)]
    for tool in ALL:
        mine = [run for run in runs if run.tool == tool]
        medians = [_median([r for r in mine if r.profile == p], "cpu_seconds") for p in {r.profile for r in mine}]
        if medians:
            drawn.append(Bar(tool, {"whole run": min(medians)}))
    share = sum(floor.values()) / _median(ours, "cpu_seconds")
    said = f"CPU seconds; the stages alone need {share:.0%} of what Longshore takes"
    cost = bars(f"Cost by stage: {title}", said, "s", drawn)
    speeds = []
    for stage in ("read", "cut", "hash", "zstd", "zstd 1", "zstd -3", "seal", "unseal", "unzip", "write"):
        for cores in ("1 core", "2 cores"):
            if cores in limits and limits[cores][stage] > 0:
                count = 1 if cores == "1 core" else 2
                speeds.append(Bar(f"{stage}, {cores}", {cores: count * GIB / 1e9 / limits[cores][stage]}))
    speeds.append(Bar("Longshore, whole, 2 cores", {"whole": size / 1e9 / _median(ours, "wall_seconds")}))
    return cost, bars(
        f"Throughput by stage: {title}", "GB of source a second, each stage by itself on the same data", "GB/s", speeds
    )


def draw(folder: Path = FOLDER, target: Path = PLOTS) -> list[str]:
    """Draw everything; returns the page's lines that show it."""
    small, noise = Keep("first-small", folder).all(), Keep("first-noise", folder).all()
    small = [run for run in small if run.tool != LIMIT]
    noise = [run for run in noise if run.tool != LIMIT]

    def files(run: Run) -> float:
        return float(amounts(run)[0])

    def size(run: Run) -> float:
        return amounts(run)[1] / 1e9

    def wall(run: Run) -> float:
        return run.figures["wall_seconds"]

    cost, speed = _stages("first-real", "first backup of a real tree", folder)
    cost_noise, _ = _stages("first-noise", "first backup of incompressible files", folder)
    pictures = {
        "time-by-files": lines("Time and number of files", "first backup of small files", "files", "seconds", curves(small, files, wall)),
        "memory-by-files": lines(
            "Memory and number of files", "first backup of small files; anonymous memory beyond the program's start", "files", "MiB",
            curves(small, files, beyond_start), limit=100,
        ),
        "time-by-size": lines("Time and size", "first backup of four incompressible files", "GB", "seconds", curves(noise, size, wall)),
        "memory-by-size": lines(
            "Memory and size", "first backup of four incompressible files; anonymous memory beyond the program's start", "GB", "MiB",
            curves(noise, size, beyond_start), limit=100,
        ),
        "throughput-by-stage": speed,
        "cost-by-stage": cost,
        "cost-by-stage-incompressible": cost_noise,
    }  # fmt: skip
    target.mkdir(exist_ok=True)
    for name, text in pictures.items():
        (target / f"{name}.svg").write_text(text)
    return ["## Plots", "", *[f"![{name.replace('-', ' ')}](plots/{name}.svg)" for name in pictures], ""]
