"""Ink for pictures that are written as SVG text: colours, and a line of words.

Written by hand because that is all that our pictures need, and a plotting library weighs more than everything else here together. Promises the same text for
the same words, names escaped, no scripts, no fonts to fetch. Does not know what is drawn.
"""

from __future__ import annotations

from html import escape

__all__ = ["COLOURS", "FONT", "GRID", "INK", "QUIET", "text"]

# Told apart also by those who see few colours (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5c00", "#555555", "#56b4e9", "#b2182b", "#8c959f")
INK, QUIET, GRID = "#24292f", "#57606a", "#d8dee4"
FONT = f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}"'


def text(
    x: float, y: float, words: str, *, anchor: str = "start", size: float = 13, colour: str = INK, bold: bool = False
) -> str:
    """Write a line of words.

    Args:
        y: of the line that letters stand on.
        anchor: which end of the words `x` is: start, middle or end.
    """
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{colour}"{weight}>{escape(words)}</text>'
