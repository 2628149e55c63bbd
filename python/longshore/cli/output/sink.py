"""What a command speaks through: text for people, or JSON lines for programs, behind one face.

Text: results on standard output; progress, notes and errors on standard error. JSON: every line on standard output is one object whose `type` is
progress, item, row, error or summary, the summary last; errors and losses are said on standard error as well, so that whoever reads the log of a
script sees them.

Promises: a line is written whole; a name that is not UTF-8 goes out as base64 under `…_base64`; nothing but JSON reaches standard output with `--json`;
nothing that a repository or a volume holds can steer a terminal.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from longshore.cli.output.human import printable
from longshore.cli.output.progress import Display, JsonDisplay, LineDisplay, SilentDisplay
from longshore.errors import LongshoreError

__all__ = ["JsonOutput", "Output", "TextOutput", "path_fields"]


def path_fields(path: bytes, *, name: str = "path") -> dict[str, str]:
    """A path for JSON: as text when it is UTF-8, else in base64 under `<name>_base64`."""
    try:
        return {name: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(path).decode()}


class Output(ABC):
    """The face that all commands speak to."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.quiet = quiet
        self._clock = clock

    @property
    def stderr(self) -> TextIO:
        """Standard error as it is now: a progress bar takes its place while it is drawn."""
        return sys.stderr

    def say(self, text: str) -> None:
        """Write a line to standard error, whatever is quiet."""
        self.stderr.write(printable(text) + "\n")
        self.stderr.flush()

    def note(self, text: str) -> None:
        """Tell people something that is neither result nor error."""
        if not self.quiet:
            self.say(text)

    def error(self, error: LongshoreError) -> None:
        """Tell a failure and the next step."""
        self.say(f"error: {error.message}")
        if error.next_step:
            self.say(f"next: {error.next_step}")

    @property
    @abstractmethod
    def as_json(self) -> bool:
        """Whether programs are listening."""

    @abstractmethod
    def line(self, text: str = "") -> None:
        """A line of a result, for people alone; the text is printable already."""

    @abstractmethod
    def row(self, fields: Mapping[str, object]) -> None:
        """One entry of a list, for programs alone."""

    @abstractmethod
    def item(self, fields: Mapping[str, object]) -> None:
        """Something about one item of a job, for programs alone."""

    @abstractmethod
    def summary(self, fields: Mapping[str, object], lines: Sequence[str]) -> None:
        """The end: fields for programs, lines for people."""

    @abstractmethod
    def watch(self, title: str, *, stored: str = "stored") -> Display:
        """A display for a job that is about to run."""

    @abstractmethod
    def document(self, value: object, *, as_yaml: bool) -> None:
        """One JSON or YAML document instead of a table."""

    def flush(self) -> None:
        """Let go of what is held back."""
        sys.stdout.flush()


class TextOutput(Output):
    """For people."""

    @property
    def as_json(self) -> bool:
        """No."""
        return False

    def line(self, text: str = "") -> None:
        """Write it."""
        # A terminal that knows fewer letters than UTF-8 gets escapes, not a failure.
        try:
            sys.stdout.write(text + "\n")
        except UnicodeEncodeError:
            sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + "\n")

    def row(self, fields: Mapping[str, object]) -> None:
        """Nothing."""

    def item(self, fields: Mapping[str, object]) -> None:
        """Nothing."""

    def summary(self, fields: Mapping[str, object], lines: Sequence[str]) -> None:  # noqa: ARG002 - for programs
        """Write the lines."""
        if not self.quiet:
            for line in lines:
                self.line(line)
        self.flush()

    def watch(self, title: str, *, stored: str = "stored") -> Display:
        """A bar on a terminal, lines elsewhere."""
        if self.quiet:
            return SilentDisplay()
        if self.stderr.isatty():
            from longshore.cli.output.bar import BarDisplay

            return BarDisplay(title, self.stderr, stored=stored)
        return LineDisplay(title, self.note, self._clock, stored=stored)

    def document(self, value: object, *, as_yaml: bool) -> None:
        """Write it, indented."""
        if as_yaml:
            import yaml

            # ASCII alone, because YAML has no say in what a terminal obeys.
            sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=False))
        else:
            sys.stdout.write(json.dumps(value, indent=2) + "\n")


class JsonOutput(Output):
    """For programs."""

    @property
    def as_json(self) -> bool:
        """Yes."""
        return True

    def _emit(self, kind: str, fields: Mapping[str, object]) -> None:
        record: dict[str, Any] = {"type": kind, **fields}
        # ASCII alone: readable by every program whatever its locale, and it keeps U+2028 and lone surrogates out of the stream.
        sys.stdout.write(json.dumps(record) + "\n")

    def line(self, text: str = "") -> None:
        """Nothing."""

    def row(self, fields: Mapping[str, object]) -> None:
        """Emit it."""
        self._emit("row", fields)

    def item(self, fields: Mapping[str, object]) -> None:
        """Emit it."""
        self._emit("item", fields)

    def summary(self, fields: Mapping[str, object], lines: Sequence[str]) -> None:  # noqa: ARG002 - for people
        """Emit it."""
        self._emit("summary", fields)
        self.flush()

    def error(self, error: LongshoreError) -> None:
        """Emit it, and say it on standard error."""
        self._emit("error", {"code": error.code, "message": error.message, "next_step": error.next_step})
        super().error(error)

    def watch(self, title: str, *, stored: str = "stored") -> Display:  # noqa: ARG002 - for people
        """A line every second."""
        if self.quiet:
            return SilentDisplay()

        def emit(fields: Mapping[str, object]) -> None:
            self._emit("progress", fields)
            self.flush()

        return JsonDisplay(emit, self._clock)

    def document(self, value: object, *, as_yaml: bool) -> None:
        """Never called: `--json` and `--output` are not given together."""
        raise AssertionError(value, as_yaml)
