"""The page: rows that were measured, as a table with what they reached, and the runs behind them.

Promises that nothing is called reached that was not measured: a row without runs, without a peer, or at less than its full size says so. The
better profile of a peer counts, for wall and for CPU time each by itself. Does not measure.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benches.volume.keep import Run
from benches.volume.peers import PEERS, TUNED
from benches.volume.rows import Row
from benches.volume.stats import Ratio, ratio

OURS = "longshore"
HOW = Path(__file__).with_name("how.md")
INTRODUCTION = """\
Each figure is a ratio of time, peer ÷ Longshore: the median over pairs of runs that stood beside one another, **wall** / CPU, with what it
should reach. ✓ says that both medians reach it and the lower ends of both intervals 85 % of it."""
METRICS = ("wall_seconds", "cpu_seconds")
# These check nothing before they upload; beside them ours is also measured without its check.
WITHOUT_CHECK = ("kopia", "borg")
# Ours may store so many times what restic stores, in the mean of the first backups.
STORED_FIGURE = 1.03


@dataclass(frozen=True, slots=True)
class Against:
    """Ours beside one peer in one row: the ratios of wall and CPU time, and whose profile was the better."""

    peer: str
    wall: Ratio
    cpu: Ratio
    wall_profile: str
    cpu_profile: str
    figure: float

    @property
    def reached(self) -> bool:
        """Whether both ratios reach the figure."""
        return self.wall.reaches(self.figure) and self.cpu.reaches(self.figure)


def pairs(
    runs: Iterable[Run], peer: str, profile: str, metric: str, step: str, peer_step: str, ours_profile: str = "default"
) -> tuple[list[float], list[float]]:
    """Runs of a peer and of ours that stood in the same round of the same group."""
    ours = {
        (r.group, r.round): r.figures[metric] for r in runs if (r.tool, r.profile, r.step) == (OURS, ours_profile, step)
    }
    theirs = [
        ((r.group, r.round), r.figures[metric])
        for r in runs
        if r.tool == peer and r.profile == profile and r.step == peer_step and (r.group, r.round) in ours
    ]
    return [value for _, value in theirs], [ours[key] for key, _ in theirs]


def against(
    runs: list[Run], peer: str, figure: float, step: str, peer_step: str, ours_profile: str = "default"
) -> Against | None:
    """Compare ours with the better profile of a peer; None when they never ran beside one another."""
    found: dict[str, tuple[Ratio, str]] = {}
    profiles = sorted({run.profile for run in runs if run.tool == peer})
    for metric in METRICS:
        ratios = []
        for profile in profiles:
            theirs, ours = pairs(runs, peer, profile, metric, step, peer_step, ours_profile)
            if ours:
                ratios.append((ratio(theirs, ours), profile))
        if not ratios:
            return None
        # A profile that was left behind after the first round has one pair, and speaks no more.
        most = max(r.pairs for r, _ in ratios)
        found[metric] = min((r for r in ratios if r[0].pairs == most), key=lambda r: r[0].median)
    (wall, wall_profile), (cpu, cpu_profile) = found["wall_seconds"], found["cpu_seconds"]
    return Against(peer, wall, cpu, wall_profile, cpu_profile, figure)


def compared(row: Row, runs: list[Run]) -> list[tuple[str, list[Against]]]:
    """Compare ours with all peers of a row, for each step that has figures; the step's word is empty for the first."""
    steps = list(dict.fromkeys(run.step for run in runs))
    if not steps:
        return []
    # All steps of ours are held against the peers' only one.
    theirs = next((run.step for run in runs if run.tool != OURS), steps[0])
    out = []
    for word, figures in (("", row.figures), *row.more_steps.items()):
        step = word or theirs
        each = [
            found for peer in PEERS if peer in figures and (found := against(runs, peer, figures[peer], step, theirs))
        ]
        out.append((word, each))
    return out


def _cell(row_figure: float | None, found: Against | None) -> str:
    if row_figure is None:
        return "-"
    if found is None:
        return f"not measured (≥ {row_figure:g})"
    mark = "✓" if found.reached else "✗"
    return f"{mark} **{found.wall.median:.2f}** / {found.cpu.median:.2f} (≥ {row_figure:g})"


def verdict(row: Row, runs: list[Run]) -> str:
    """One word on a row: reached, below, or why it is neither."""
    if not runs:
        return "not measured"
    if runs[0].setting.scale != 1:
        return f"only at scale {runs[0].setting.scale:g}"
    all_found = compared(row, runs)
    wanted = len(row.figures) + sum(len(figures) for figures in row.more_steps.values())
    each = [one for _, found in all_found for one in found]
    if len(each) < wanted:
        return "not against every peer"
    return "reached" if all(one.reached for one in each) else "below"


def table(rows: Iterable[tuple[Row, list[Run]]]) -> list[str]:
    """Lay rows out: a line each, two for a row with two steps."""
    lines = [
        "| scenario | restic | kopia | rustic | borg | |",
        "|---|---|---|---|---|---|",
    ]
    for row, runs in rows:
        found = compared(row, runs) or [("", [])]
        for word, each in found:
            figures = row.more_steps[word] if word else row.figures
            by_peer = {one.peer: one for one in each}
            cells = [_cell(figures.get(peer), by_peer.get(peer)) for peer in PEERS]
            title = f"{row.title}: {word}" if word else row.title
            lines.append(f"| {title} | {' | '.join(cells)} | {'' if word else verdict(row, runs)} |")
    return lines


def _median(runs: list[Run], key: str) -> float | None:
    values = [run.figures[key] for run in runs if key in run.figures]
    return statistics.median(values) if values else None


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def details(row: Row, runs: list[Run]) -> list[str]:
    """Everything that was measured of a row: medians of each contender, intervals of the ratios, the data, the conditions."""
    lines = [f"### {row.title}", ""]
    if not runs:
        return [
            *lines,
            f"Not measured yet: `make bench ONLY={row.name}`, about {row.expected_minutes} minutes on an idle machine.",
            "",
        ]
    first = runs[0]
    loads = [run.notes.get("load", 0.0) for run in runs]
    lines += [
        f"{first.notes['data']}; scale {first.setting.scale:g}; commit {first.commit}; load average before runs {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "| contender | runs | wall s | CPU s | peak MiB (anonymous, beyond its start) | largest RSS MiB | stored MB | requests | differences |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    keys = list(dict.fromkeys((run.tool, run.profile, run.step) for run in runs))
    for tool, profile, step in sorted(keys, key=lambda k: (k[0] != OURS, k)):
        mine = [run for run in runs if (run.tool, run.profile, run.step) == (tool, profile, step)]
        anon = [max(0.0, run.figures["anon_mib"] - run.figures["idle_anon_mib"]) for run in mine]
        stored = _median(mine, "stored_bytes")
        cells = [
            ", ".join(word for word in (mine[0].notes["version"], profile, step) if (tool, word) != (OURS, "default")),
            str(len(mine)),
            _number(_median(mine, "wall_seconds")),
            _number(_median(mine, "cpu_seconds")),
            _number(max(anon), ".0f"),
            _number(max(run.figures["rss_mib"] for run in mine), ".0f"),
            _number(None if stored is None else stored / 1e6, ".1f"),
            _number(_median(mine, "requests"), ".0f"),
            _number(_median(mine, "differences"), ".0f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for word, each in compared(row, runs):
        for one in each:
            what = f"{one.peer}, {word}" if word else one.peer
            lines.append(
                f"- {what}: wall {one.wall.median:.2f} ({one.wall.low:.2f} to {one.wall.high:.2f}, {one.wall_profile}), "
                f"CPU {one.cpu.median:.2f} ({one.cpu.low:.2f} to {one.cpu.high:.2f}, {one.cpu_profile}), {one.wall.pairs} pairs; figure {one.figure:g}: "
                f"{'reached' if one.reached else 'below'}"
            )
    for peer in WITHOUT_CHECK:
        if beside := against(runs, peer, row.figures.get(peer, 0.0), "first", "first", "unchecked"):
            lines.append(
                f"- {peer}, which checks nothing before it uploads, beside Longshore without its check: wall {beside.wall.median:.2f}, "
                f"CPU {beside.cpu.median:.2f}"
            )
    return [*lines, ""]


def stored(rows: Iterable[tuple[Row, list[Run]]]) -> list[str]:
    """Say what ours stores beside restic as it comes, in the mean of the first backups that were measured."""
    shares = []
    for row, runs in rows:
        sizes = [
            _median([r for r in runs if (r.tool, r.profile) == (tool, "default")], "stored_bytes")
            for tool in (OURS, "restic")
        ]
        if row.way == "first" and sizes[0] and sizes[1]:
            shares.append(sizes[0] / sizes[1])
    if not shares:
        return []
    mean = statistics.fmean(shares)
    mark = "✓" if mean <= STORED_FIGURE else "✗"
    return [
        f"{mark} Stored: {mean:.3f} of what restic stores (≤ {STORED_FIGURE}; mean of {len(shares)} first backups).",
        "",
    ]


def page(rows: list[tuple[Row, list[Run]]], absolute: list[str], bounds: list[str], plots: list[str]) -> str:
    """Put the whole page together."""
    measured = [runs for _, runs in rows if runs]
    machines = sorted({run.setting.machine for runs in measured for run in runs})
    versions = sorted({run.notes["version"] for runs in measured for run in runs})
    tuned = "; ".join(f"{peer} {how}" for peer, how in TUNED.items())
    how = HOW.read_text().format(
        machines="; ".join(machines) or "none yet", versions="; ".join(versions) or "none yet", tuned=tuned
    )
    lines = [
        "# Longshore beside restic, kopia, rustic and borg",
        "",
        INTRODUCTION,
        "",
        *table(rows),
        "",
        *stored(rows),
        "## What bounds it",
        "",
        *(bounds or ["Nothing written yet."]),
        "",
        "## Absolute figures",
        "",
        *absolute,
        "",
        *plots,
        "## How it was measured",
        "",
        how,
        "## Rows",
        "",
    ]
    for row, runs in rows:
        lines += details(row, runs)
    return "\n".join(lines).rstrip() + "\n"
