"""What the reader sees: on a terminal bars that move, elsewhere plain lines that say the same.

Promises: the terminal is left as it was found, however the demo ends; a log file gets no control characters and no line twice. The picture for the
README is drawn from the very lines that were printed, without the bars that came and went.

Does not know: what is shown.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from longshore.cli.output.human import duration, printable, size

__all__ = ["Screen", "Tracker"]

# Without the fonts that it would have the reader's browser fetch from elsewhere: any monospaced one does.
_PICTURE = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)

_WIDTH_MAX = 118
_PICTURE_WIDTH = 108
_LINE_SECONDS = 5.0


@dataclass(slots=True)
class Tracker:
    """One thing that is under way: its phases so far, how much is done, and whatever else can be said."""

    title: str
    phases: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    beside: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    def enter(self, phase: str) -> bool:
        """Note a phase; tells whether it is a new one."""
        if self.phases and self.phases[-1] == phase:
            return False
        self.phases.append(phase)
        return True

    def said(self) -> str:
        """How far it is, in words."""
        parts = []
        if self.total:
            parts.append(f"{size(self.done)} of {size(self.total)}")
        elif self.done:
            parts.append(size(self.done))
        if self.done and self.seconds > 0.5:
            parts.append(f"{size(self.done / self.seconds)}/s")
        if self.beside:
            parts.append(self.beside)
        parts.append(duration(self.seconds))
        return "   ".join(parts)


def _continued(command: str, width: int) -> list[str]:
    """Break a command between its words into lines that a shell would put together again."""
    parts: list[str] = []
    for word in command.split(" "):
        if parts and len(parts[-1]) + len(word) + 3 <= width:
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return [f"{part} \\" for part in parts[:-1]] + parts[-1:]


class Screen:
    """Prints."""

    def __init__(self, *, record: bool = False) -> None:
        """Prepare.

        Args:
            record: keep what is printed for `save_picture`.
        """
        console = Console(highlight=False, markup=False)
        width = min(console.width, _WIDTH_MAX)
        self._console = Console(highlight=False, markup=False, width=width if console.is_terminal else _WIDTH_MAX)
        self._picture = (
            Console(
                highlight=False,
                markup=False,
                record=True,
                file=io.StringIO(),
                force_terminal=True,
                color_system="truecolor",
                width=_PICTURE_WIDTH,
            )
            if record
            else None
        )

    def show(self, *what: RenderableType, wrap: bool = True) -> None:
        """Print, for good."""
        for one in what:
            # A path or a command must survive being copied, so it is never broken; in the picture nobody can copy it.
            self._console.print(one, soft_wrap=not wrap)
            if self._picture is not None:
                self._picture.print(one)

    def opening(self, title: str, text: str) -> None:
        """Say what is going to happen."""
        body = Group(Text(title, style="bold"), Text(text))
        self.show(Panel(body, border_style="cyan", padding=(0, 2)))

    def step(self, number: int, title: str) -> None:
        """Begin a chapter."""
        self.show("", Rule(Text(f"{number}  {title}", style="bold cyan"), align="left", style="cyan"))

    def say(self, text: str, *, style: str = "") -> None:
        """Say something."""
        self.show(Padding(Text(text, style=style), (0, 0, 0, 3), expand=False))

    def good(self, text: str) -> None:
        """Say that something came out well."""
        self.show(Padding(Text.assemble(("✓ ", "bold green"), text), (0, 0, 0, 1), expand=False))

    def bad(self, text: str) -> None:
        """Say that something did not."""
        self.show(Padding(Text.assemble(("✗ ", "bold red"), (printable(text), "red")), (0, 0, 0, 1), expand=False))

    def command(self, text: str) -> None:
        """Show a command to copy, in one line however long it is."""
        self._console.print(Text.assemble("   ", ("$ ", "dim"), (text, "bold")), soft_wrap=True)
        if self._picture is not None:
            for number, line in enumerate(_continued(text, _PICTURE_WIDTH - 8)):
                head = ("$ ", "dim") if number == 0 else "      "
                self._picture.print(Text.assemble("   ", head, (line, "bold")))

    def output(self, text: str) -> None:
        """Show what a command printed."""
        for line in text.splitlines():
            cut = Text(printable(line), style="dim", no_wrap=True, overflow="ellipsis")
            # Printed bare, a text forgets how it is to be cut.
            self.show(Padding(cut, (0, 0, 0, 5), expand=False))

    def table(self, table: Table) -> None:
        """Show a table."""
        self.show("", Padding(table, (0, 0, 0, 1), expand=False))

    def failure(self, message: str, next_step: str) -> None:
        """Say why it ends here."""
        body = [Text(f"error: {message}", style="bold red")]
        if next_step:
            body.append(Text(f"next: {next_step}"))
        self.show("", *body, wrap=False)

    @contextmanager
    def track(self, title: str) -> Iterator[Tracker]:
        """Show something that is under way; whoever changes the tracker calls `refresh` now and then.

        What it came to is for the caller to say, once the bar is gone.
        """
        tracker = Tracker(title)
        self._tracker, self._next_line = tracker, time.monotonic() + _LINE_SECONDS
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True, get_renderable=self._frame)
            if self._console.is_terminal
            else None
        )
        if self._live is None:
            self.say(title)
            yield tracker
            return
        with self._live:
            yield tracker

    def refresh(self) -> None:
        """Draw the bar anew; on no terminal, a line now and then."""
        if self._live is not None:
            self._live.refresh()
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            self.say(f"{_arrows(self._tracker.phases).plain}   {self._tracker.said()}")

    def save_picture(self, path: Path, *, title: str) -> None:
        """Write what was printed as a picture of a terminal."""
        if self._picture is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._picture.save_svg(str(path), title=title, code_format=_PICTURE)

    def _frame(self) -> RenderableType:
        tracker = self._tracker
        bar = ProgressBar(
            total=max(tracker.total, 1),
            completed=min(tracker.done, max(tracker.total, 1)),
            pulse=not tracker.done,
            animation_time=tracker.seconds,
            width=46,
        )
        line = Table.grid(padding=(0, 2))
        share = f"{min(tracker.done / tracker.total, 1):.0%}" if tracker.total and tracker.done else ""
        line.add_row(bar, Text(share), Text(tracker.said(), no_wrap=True, overflow="ellipsis"))
        head = Text(tracker.title)
        if tracker.phases:
            head.append("   ").append_text(_arrows(tracker.phases))
        return Padding(Group(head, line), (0, 0, 0, 3))


def _arrows(phases: list[str]) -> Text:
    text = Text()
    for place, phase in enumerate(phases):
        if place:
            text.append(" → ", style="dim")
        text.append(phase, style={"Completed": "bold green", "Failed": "bold red"}.get(phase, "yellow"))
    return text


def arrows(phases: list[str]) -> str:
    """Phases as plain text."""
    return _arrows(phases).plain
