"""Figures that stand by themselves: memory, a process's start, one small backup in a cluster, and volumes too large for any disk here.

Each is kept like a row's runs and named `absolute-…`; memory at a million files is taken from the rows that measured it. Promises that what was
not measured says so. Does not know peers.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benches.volume import data, keep
from benches.volume.keep import FOLDER, Keep, Run, Setting
from benches.volume.peers import Contender, binary
from benches.volume.plots import beyond_start
from benches.volume.process import Cost, run, settle

OURS = "longshore"
REPEATS = 5
CGROUP_BYTES = 256 << 20
_CGROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its name for ONLY, what it says, its limit with unit, and how it is measured.

    Attributes:
        measure: returns figures by name; `value` is held against the limit.
    """

    name: str
    title: str
    limit: float
    unit: str
    measure: Callable[[Path, float], dict[str, float]] | None = None
    from_rows: tuple[str, ...] = ()


class NotHereError(Exception):
    """This machine cannot measure it; the message says why."""


def _environment(work: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(work), "LANG": "C.UTF-8"}


def _medians(costs: list[Cost]) -> dict[str, float]:
    return {"value": statistics.median(c.wall_seconds for c in costs), "rss_mib": max(c.rss_mib for c in costs)}


def help_seconds(work: Path, _scale: float) -> dict[str, float]:
    """`longshore --help`, its median."""
    command = [str(binary(OURS)), "--help"]
    costs = [run(command, env=_environment(work), log=work / "log") for _ in range(REPEATS + 1)]
    # The first may compile Python's caches.
    return _medians(costs[1:])


def agent_seconds(work: Path, _scale: float) -> dict[str, float]:
    """Import and start of the agent against the embedded API server: until it says that it is ready."""
    from benches.volume import agent

    return agent.start(work)


def backup_seconds(work: Path, _scale: float) -> dict[str, float]:
    """A PodVolumeBackup of 1,000 files and 10 MB on the real API server, from its creation to Completed."""
    from benches.volume import agent

    return agent.backup(work)


def insertions(work: Path, scale: float) -> dict[str, float]:
    """A second backup after 20 random insertions into a file of 128 MiB: what it stores, as a share of the file."""
    source = work / "source"
    source.mkdir()
    length = int(128 * data.MIB * scale)
    subprocess.run([*data.program("make-data"), "noise", source / "file", "1", str(length)], check=True)
    ours = Contender(OURS, "default", work)
    ours.fresh()
    ours.backup(source)
    before = ours.stored_bytes()
    subprocess.run([*data.program("make-data"), "inserts", source / "file", "7", "20"], check=True)
    ours.backup(source)
    return {"value": 100 * (ours.stored_bytes() - before) / length}


def small_cgroup(work: Path, scale: float) -> dict[str, float]:
    """Back up and restore in a cgroup of 256 MB, page cache included: whether both succeed, and the peak."""
    if os.geteuid() != 0 or not os.access(_CGROUPS, os.W_OK):
        raise NotHereError("only root with a writable memory controller of cgroup version 1 can make such a cgroup")
    source, target = work / "source", work / "target"
    source.mkdir()
    data.small_files(source, scale)
    ours = Contender(OURS, "default", work)
    ours.fresh()
    settle()
    group = Path(tempfile.mkdtemp(prefix="longshore-bench-", dir=_CGROUPS))
    try:
        (group / "memory.limit_in_bytes").write_text(str(CGROUP_BYTES))
        # The shell enters the cgroup and becomes the program.
        enter = ["sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh", ours.path]
        costs = [
            run([*enter, "volume", "backup", "--volume", "bench", str(source)], env=ours.env, log=ours.log),
            run([*enter, "volume", "restore", "latest", str(target)], env=ours.env, log=ours.log),
        ]
        peak = int((group / "memory.max_usage_in_bytes").read_text()) / data.MIB
    finally:
        group.rmdir()
    seconds = [round(cost.wall_seconds, 3) for cost in costs]
    return {"value": peak, "backup_seconds": seconds[0], "restore_seconds": seconds[1]}


def _rule(work: Path, files: int, file_bytes: int) -> dict[str, float]:
    scratch = Path(tempfile.mkdtemp(dir=work))
    answer = subprocess.run(
        [*data.program("scale"), str(files), str(file_bytes), scratch], check=True, capture_output=True, text=True
    )
    shutil.rmtree(scratch)
    return {name: float(value) for name, value in json.loads(answer.stdout).items()}


def ten_million(work: Path, scale: float) -> dict[str, float]:
    """Ten million files that exist as a rule alone: memory of the first backup, the unchanged one and the restore."""
    found = _rule(work, int(10_000_000 * scale), 100)
    return {"value": max(found[f"{what}_anon_mib"] for what in ("first", "again", "restore")), **found}


def huge(work: Path, scale: float) -> dict[str, float]:
    """Sixty-four files of 1 GiB that exist as a rule alone."""
    found = _rule(work, 64, int(data.GIB * scale))
    return {"value": max(found["first_anon_mib"], found["again_anon_mib"]), **found}


def flat(work: Path, scale: float) -> dict[str, float]:
    """Time a file from a hundred thousand files to ten million: the largest beside the smallest, as per cent more."""
    micros = {}
    for files in (100_000, 1_000_000, 10_000_000):
        count = int(files * scale)
        found = _rule(work, count, 100)
        micros[files] = found["first_seconds"] / count * 1e6
    spread = max(micros.values()) / min(micros.values()) - 1
    return {"value": 100 * spread, **{f"micros_at_{n}": round(m, 3) for n, m in micros.items()}}


FIGURES = [
    Figure("absolute-memory-backup", "peak memory, backup of one million files", 100, "MiB", from_rows=("first-small", "unchanged", "changed-files")),
    Figure("absolute-memory-restore", "peak memory, restore of one million files", 100, "MiB", from_rows=("restore-small",)),
    Figure("absolute-memory-ten-million", "peak memory, backup and restore of ten million files (of a rule, restored to nowhere)", 120, "MiB", ten_million),
    Figure("absolute-memory-64-gib", "peak memory, backup of 64 GiB (of a rule, packs discarded)", 120, "MiB", huge),
    Figure("absolute-cgroup", "one million files out and back in a cgroup of 256 MB: peak, page cache included", 256, "MiB", small_cgroup),
    Figure("absolute-flat", "time a file, 10⁵ to 10⁷ files: spread", 25, "%", flat),
    Figure("absolute-insertions", "stored after 20 insertions into a file of 128 MiB", 15, "%", insertions),
    Figure("absolute-pvb", "PodVolumeBackup of 1,000 files and 10 MB, creation to Completed, real API server", 1.0, "s", backup_seconds),
    Figure("absolute-agent", "import and start of the agent, until ready", 1.5, "s", agent_seconds),
    Figure("absolute-agent-memory", "memory of the agent when it is ready", 120, "MiB", from_rows=("absolute-agent",)),
    Figure("absolute-help", "`longshore --help`", 0.15, "s", help_seconds),
]  # fmt: skip


def measure(figure: Figure, work: Path, scale: float, folder: Path = FOLDER) -> None:
    """Measure a figure and keep it.

    Raises:
        NotHereError: this machine cannot.
    """
    if figure.measure is None:
        return
    place = Path(tempfile.mkdtemp(dir=work))
    print(f"{time.strftime('%H:%M:%S')} {figure.name}", file=sys.stderr, flush=True)
    try:
        found = figure.measure(place, scale)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    setting = Setting(keep.subject(), keep.machine(), scale)
    kept = Keep(figure.name, folder)
    kept.add([Run(setting, len(kept.of(setting)), OURS, "default", "", figure.name, 0, keep.commit(), found)])
    kept.only(setting)


def value(figure: Figure, folder: Path = FOLDER) -> tuple[float, float] | None:
    """A figure's value, and the scale at which it was measured; None when it was not."""
    if figure.measure is not None:
        runs = Keep(figure.name, folder).newest()
        return (statistics.median(r.figures["value"] for r in runs), runs[0].setting.scale) if runs else None
    found: list[tuple[float, float]] = []
    for row in figure.from_rows:
        for one in Keep(row, folder).newest():
            if one.tool == OURS:
                mib = one.figures["anon_mib_ready"] if row.startswith("absolute-") else beyond_start(one)
                found.append((mib, one.setting.scale))
    return (max(mib for mib, _ in found), min(scale for _, scale in found)) if found else None


def lines(folder: Path = FOLDER) -> list[str]:
    """The page's table of these figures."""
    out = ["| figure | limit | measured | |", "|---|---|---|---|"]
    for figure in FIGURES:
        found = value(figure, folder)
        if found is None:
            said, word = "-", "not measured"
        else:
            said = f"{found[0]:.2f} {figure.unit}" if figure.unit == "s" else f"{found[0]:.0f} {figure.unit}"
            word = "reached" if found[0] <= figure.limit else "above"
            word = word if found[1] == 1 else f"only at scale {found[1]:g}"
        out.append(f"| {figure.title} | {figure.limit:g} {figure.unit} | {said} | {word} |")
    return out


def named(name: str) -> Figure | None:
    """Find a figure by its name."""
    return next((figure for figure in FIGURES if figure.name == name), None)
