"""A progress bar for a terminal: three lines on standard error, gone when the job is.

Rich draws it, at most ten times a second, and prints what is written to standard error meanwhile above it. Nothing here runs in a pipe.
"""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from longshore.cli.output.human import duration, printable
from longshore.cli.output.progress import Counters, Meter, Reading, sentence, titled

__all__ = ["BarDisplay"]

REFRESH_PER_SECOND = 10


class _Frame:
    """What one reading looks like."""

    def __init__(self, title: str, reading: Reading, stored: str) -> None:
        self._title, self._reading, self._stored = title, reading, stored

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        reading, counters = self._reading, self._reading.counters
        known = reading.settled and (counters.bytes_total > 0 or counters.files_total > 0)
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        left = duration(reading.eta_seconds) + " left" if reading.eta_seconds is not None else ""
        head.add_row(
            Text(titled(self._title, counters)),
            ProgressBar(total=1.0, completed=reading.fraction, pulse=not known, animation_time=reading.seconds),
            Text(f"{reading.fraction:.0%}" if known else ""),
            Text(left or duration(reading.seconds)),
        )
        lines = [
            Text(f"  {said}", style="dim", no_wrap=True, overflow="ellipsis")
            for said in (sentence(reading, stored=self._stored), printable(counters.current))
        ]
        yield Group(head, *lines)


class BarDisplay:
    """The bar of one job."""

    def __init__(self, title: str, stderr: TextIO, *, stored: str = "stored") -> None:
        self._title, self._stored = title, stored
        self._meter = Meter(time.monotonic)
        self._console = Console(file=stderr, highlight=False, markup=False)
        # Standard output may be a pipe with results in it: only standard error is drawn above the bar.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
        )
        self._drawn = 0.0
        self._live.start()

    def update(self, counters: Counters) -> None:
        """Draw, unless it was drawn a moment ago."""
        reading = self._meter.read(counters)
        now = time.monotonic()
        if now - self._drawn >= 0.9 / REFRESH_PER_SECOND:
            self._drawn = now
            self._live.update(_Frame(self._title, reading, self._stored), refresh=True)

    def close(self) -> None:
        """Take the bar away and show the cursor again."""
        self._live.stop()
