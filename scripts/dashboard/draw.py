"""The dashboard as one picture: each panel at its place in the grid, with what Prometheus answered.

Promises: the same text for the same answers; nothing of a panel leaves its frame: names that are too long end in …, series that the legend has no room for are
counted. A line is broken where there was no value. A panel without data says so. What a panel asks stands in it, for who points at it and for the test that
holds picture and dashboard together.

Does not know: where answers come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import pairwise

from scripts.dashboard.board import Panel
from scripts.dashboard.units import marks, written
from scripts.ink import COLOURS, FONT, GRID, INK, QUIET, text

__all__ = ["Named", "draw", "fit", "legend_rows", "runs"]

# A cell of Grafana's grid is 30 high, and 8 lie between two of them.
_CELL, _GAP, _HEAD = 30, 8, 62
_WIDTH = 1440
_COLUMN = (_WIDTH - _GAP) / 24
_STEP_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_LEGEND_SIZE, _LEGEND_STEP, _LEGEND_ROWS = 11.5, 17, 4
# Width of a mean letter of a sans-serif face, by its size; wide faces are a tenth wider.
_LETTER = 0.58
_SHADES = {"green": "#1a7f37", "red": "#cf222e"}


@dataclass(frozen=True, slots=True)
class Named:
    """A series with the name that the legend gives it."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float


def draw(
    title: str,
    subtitle: str,
    panels: Sequence[Panel],
    answers: Mapping[str, Sequence[Named]],
    *,
    start: float,
    end: float,
) -> str:
    """Draw the dashboard.

    Args:
        title: the dashboard's.
        subtitle: what was at work.
        panels: where they stand, and in which units they speak.
        answers: by the panel's title.
        start: Unix time at the left end of each panel.
        end: and at its right end.
    """
    height = _HEAD + max(panel.y + panel.height for panel in panels) * (_CELL + _GAP) + _GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#f4f5f5"/>',
        text(16, 28, title, size=19, bold=True),
        text(16, 48, subtitle, size=12.5, colour=QUIET),
    ]
    for panel in panels:
        box = _Box(
            _GAP + panel.x * _COLUMN,
            _HEAD + panel.y * (_CELL + _GAP),
            panel.width * _COLUMN - _GAP,
            panel.height * (_CELL + _GAP) - _GAP,
        )
        asked = "\n".join(target.expr for target in panel.targets)
        out.append(
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="3" fill="#ffffff" stroke="{GRID}">'
            f"<title>{escape(asked)}</title></rect>"
        )
        out.append(
            text(box.x + 10, box.y + 21, fit(panel.title, box.width - 20, 13.5, bold=True), size=13.5, bold=True)
        )
        found = [one for one in answers.get(panel.title, ()) if one.points]
        if not found:
            out.append(
                text(box.x + box.width / 2, box.y + box.height / 2 + 8, "No data", anchor="middle", colour=QUIET)
            )
        elif panel.kind == "stat":
            out += _stat(panel, box, found, start, end)
        else:
            out += _timeseries(panel, box, found, start, end)
    return "\n".join([*out, "</svg>", ""])


def fit(words: str, width: float, size: float, *, bold: bool = False) -> str:
    """Shorten words to a width."""
    most = max(1, int(width / (size * _LETTER * (1.07 if bold else 1.0))))
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def legend_rows(names: Sequence[str], width: float) -> tuple[list[list[tuple[float, int, str]]], int]:
    """Lay names out in rows.

    Returns:
        Rows of (x, number of the series, name), and how many series found no room.
    """
    rows: list[list[tuple[float, int, str]]] = [[]]
    x = 0.0
    for number, name in enumerate(names):
        words = fit(name, width - 20, _LEGEND_SIZE)
        wide = 20 + len(words) * _LEGEND_SIZE * _LETTER + 12
        if x > 0 and x + wide - 12 > width:
            if len(rows) == _LEGEND_ROWS:
                return rows, len(names) - number
            rows.append([])
            x = 0.0
        rows[-1].append((x, number, words))
        x += wide
    return rows, 0


def runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Cut a series where values are missing: where two are further apart than the two that are closest, and a half."""
    if len(points) < 2:
        return [list(points)]
    step = min(after[0] - before[0] for before, after in pairwise(points))
    out = [[points[0]]]
    for before, after in pairwise(points):
        if after[0] - before[0] > step * 1.5:
            out.append([])
        out[-1].append(after)
    return out


def _stat(panel: Panel, box: _Box, found: Sequence[Named], start: float, end: float) -> list[str]:
    """The last value, large, in the colour of its threshold, and behind it how it came about."""
    last = found[0].points[-1][1]
    colour = INK
    for begins, name in panel.steps:
        if last >= begins:
            colour = _SHADES.get(name, name)
    top = max(value for _, value in found[0].points) or 1.0
    low, high = box.y + box.height - 4, box.y + box.height * 0.7
    out = []
    for run in runs(found[0].points):
        places = [
            (box.x + 2 + (at - start) / (end - start) * (box.width - 4), low - value / top * (low - high))
            for at, value in run
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(
            f'<polygon points="{places[0][0]:.1f},{low:.1f} {line} {places[-1][0]:.1f},{low:.1f}" fill="{colour}" fill-opacity="0.10"/>'
        )
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-opacity="0.45" stroke-width="1"/>')
    words = written(last, panel.unit)
    out.append(
        text(
            box.x + box.width / 2,
            box.y + box.height / 2 + 22,
            words,
            anchor="middle",
            size=42,
            colour=colour,
            bold=True,
        )
    )
    return out


def _timeseries(panel: Panel, box: _Box, found: Sequence[Named], start: float, end: float) -> list[str]:
    values = [value for one in found for _, value in one.points]
    low = min(values) if panel.bottom is None else panel.bottom
    rounds = marks(low, max(values), panel.unit)
    labels = [written(mark, panel.unit) for mark in rounds]
    left = box.x + 18 + max(len(label) for label in labels) * 11 * _LETTER
    right = box.x + box.width - 14
    rows, more = legend_rows([one.name for one in found], box.width - 24)
    top, bottom = box.y + 38, box.y + box.height - 14 - _LEGEND_STEP * len(rows) - 20

    def x_at(at: float) -> float:
        return left + (at - start) / (end - start) * (right - left)

    def y_at(value: float) -> float:
        return bottom - (value - rounds[0]) / (rounds[-1] - rounds[0]) * (bottom - top)

    out = []
    for mark, label in zip(rounds, labels, strict=True):
        y = y_at(mark)
        out.append(f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        out.append(text(left - 7, y + 4, label, anchor="end", size=11, colour=QUIET))
    for at in _times(start, end, right - left):
        x = x_at(at)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{GRID}"/>')
        out.append(
            text(x, bottom + 16, f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}", anchor="middle", size=11, colour=QUIET)
        )
    for number, one in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        dash = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
        for run in runs(one.points):
            if len(run) == 1:
                out.append(f'<circle cx="{x_at(run[0][0]):.1f}" cy="{y_at(run[0][1]):.1f}" r="1.8" fill="{colour}"/>')
                continue
            line = " ".join(f"{x_at(at):.1f},{y_at(value):.1f}" for at, value in run)
            out.append(
                f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"{dash}/>'
            )
    for row, entries in enumerate(rows):
        y = box.y + box.height - 12 - _LEGEND_STEP * (len(rows) - 1 - row)
        for x, number, words in entries:
            colour = COLOURS[number % len(COLOURS)]
            out.append(
                f'<line x1="{box.x + 12 + x:.1f}" x2="{box.x + 26 + x:.1f}" y1="{y - 4:.1f}" y2="{y - 4:.1f}" stroke="{colour}" stroke-width="3"/>'
            )
            out.append(text(box.x + 31 + x, y, words, size=_LEGEND_SIZE))
    if more:
        out.append(text(right, box.y + 21, f"and {more} more", anchor="end", size=_LEGEND_SIZE, colour=QUIET))
    return out


def _times(start: float, end: float, width: float) -> list[float]:
    """Round times, as many as have room for their words."""
    most = max(1.0, width / 75)
    step = next((one for one in _STEP_SECONDS if (end - start) / one <= most), _STEP_SECONDS[-1])
    first = int(start // step + 1) * step
    margin = (end - start) * 22 / width
    return [float(at) for at in range(first, int(end) + 1, step) if start + margin <= at <= end - margin]
