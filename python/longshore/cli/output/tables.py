"""Tables for people: aligned columns, no lines, the heading in capitals, as kubectl prints them.

A table is the same on a terminal and in a pipe, so that what is seen can be cut and searched. Widths are counted in cells, so that wide characters align.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longshore.cli.output.human import printable

__all__ = ["Column", "cells", "facts", "render"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and whether it is a number."""

    heading: str
    right: bool = False


def cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _padded(text: str, width: int, *, right: bool) -> str:
    blank = " " * (width - cells(text))
    return blank + text if right else text + blank


def render(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[str]:
    """Align rows under their headings.

    Args:
        columns: as many as each row has cells.
        rows: texts; whatever would move the cursor is escaped.

    Returns:
        Lines without trailing blanks, the headings first.
    """
    lines = [[column.heading for column in columns], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(cells(line[at]) for line in lines) for at in range(len(columns))]
    return [
        "   ".join(
            _padded(cell, width, right=column.right) for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def facts(pairs: Iterable[tuple[str, str]], *, indent: str = "") -> list[str]:
    """Align `name   value` lines; what has no value is left out."""
    kept = [(name, printable(value)) for name, value in pairs if value]
    width = max((cells(name) for name, _ in kept), default=0)
    return [f"{indent}{_padded(name, width, right=False)}   {value}" for name, value in kept]
