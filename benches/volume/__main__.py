"""`make bench`: measures rows, and writes the page.

    python -m benches.volume                       write results.md from what was measured, and print its table
    python -m benches.volume --only first-real     measure a row first, or go on with it; `all` for every row
    python -m benches.volume --only all --scale 0.01 --pairs 1 --peers restic,kopia --scratch

Does not know how a row is measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support.components import interrupt_on_sigterm

from benches.volume import absolute, plots, render, rows
from benches.volume.bench import LIMIT, CannotMeasureError, Options
from benches.volume.keep import FOLDER, Keep
from benches.volume.peers import PEERS
from benches.volume.scenarios import measure, shared

PAGE = Path(__file__).with_name("results.md")
# What keeps a figure from being reached, with the measurement: written by hand.
BOUNDS = PAGE.with_name("bounds.md")
ROOM_BYTES = 20 * 10**9


def two_cores() -> None:
    """Leave this process and its children two processors, so that machines of different size can be compared."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 when a row could not be measured.
    """
    parser = argparse.ArgumentParser(prog="make bench", description="Measure rows, and write results.md.")
    parser.add_argument("--only", default="", help="a row's name, several with commas, or all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--pairs", type=int, help="rounds (default: 7 for short rows, 3 for long ones)")
    parser.add_argument("--peers", default=",".join(PEERS), help="against whom")
    parser.add_argument("--profiles", default="default,tuned")
    parser.add_argument(
        "--work", type=Path, help="where data, repositories and targets go; 20 GB (default: .cache/bench)"
    )
    parser.add_argument(
        "--scratch", action="store_true", help="show what was measured on the terminal, and keep nothing"
    )
    parser.add_argument("--list", action="store_true", help="name the rows")
    options = parser.parse_args(arguments)
    if options.list:
        for row in rows.ROWS:
            print(f"{row.name:28} {row.expected_minutes:4} min  {row.title}")
        for figure in absolute.FIGURES:
            if figure.measure is not None:
                print(f"{figure.name:28}           {figure.title}")
        return 0
    known = [row.name for row in rows.ROWS] + [figure.name for figure in absolute.FIGURES]
    names = known if options.only == "all" else [name for name in options.only.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}; known are: {', '.join(known)}")
    interrupt_on_sigterm()
    two_cores()
    base = options.work or Path(".cache/bench").resolve()
    base.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory(dir=base, prefix="run-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        keep_folder = work / "measured" if options.scratch else FOLDER
        free = shutil.disk_usage(work).free
        if names and free < ROOM_BYTES * options.scale:
            parser.error(f"a row needs up to 20 GB: free_bytes={free}, folder={base}")
        asked = Options(
            work,
            options.scale,
            options.pairs,
            tuple(options.peers.split(",")),
            tuple(options.profiles.split(",")),
            keep_folder,
        )
        figures = [figure for name in names if (figure := absolute.named(name)) is not None]
        todo: list[tuple[str, Callable[[], None]]] = [
            (",".join(row.name for row in together), partial(measure, together, asked))
            for together in shared(row for row in rows.ROWS if row.name in names)
        ]
        todo += [(f.name, partial(absolute.measure, f, work, options.scale, keep_folder)) for f in figures]
        for name, work_on in todo:
            try:
                work_on()
            except (CannotMeasureError, absolute.NotHereError) as error:
                print(f"{name}: not measured: {error}", file=sys.stderr)
                failed.append(name)
        kept = [(row, [r for r in Keep(row.name, keep_folder).newest() if r.tool != LIMIT]) for row in rows.ROWS]
        if options.scratch and any(name.startswith("absolute-") for name in names):
            print("\n".join(absolute.lines(keep_folder)))
    if options.scratch:
        kept = [(row, runs) for row, runs in kept if runs]
        for row, runs in kept:
            print("\n".join(render.details(row, runs)))
    else:
        bounds = BOUNDS.read_text().splitlines() if BOUNDS.exists() else []
        PAGE.write_text(render.page(kept, absolute.lines(), bounds, plots.draw()))
    print("\n".join(render.table(kept)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
