"""Two kinds of pictures as SVG text: lines over two logarithmic axes, and stacked bars.

Promises the same text for the same numbers, no scripts, no fonts to fetch, labels that do not lie on one another. Knows nothing of backups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from scripts.ink import COLOURS, FONT, GRID, QUIET, text

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 74, 150, 74, 56
_LABEL_STEP = 16


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name and its points, ascending by x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, and its parts by their names in the order in which they are stacked."""

    name: str
    parts: dict[str, float]


def plain(value: float) -> str:
    """A number as people write it on an axis: 0.5, 20, 3k, 1M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _frame(title: str, subtitle: str, height: int, body: list[str]) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" {FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        text(16, 24, title, size=16, bold=True),
        text(16, 43, subtitle, size=12, colour=QUIET),
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten in a range, with 2 and 5 between them when there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [10.0**p * m for p in powers for m in ((1, 2, 5) if len(powers) < 5 else (1,))]
    return [mark for mark in marks if low <= mark * 1.000001 and mark <= high * 1.000001]


def _round_out(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    marks = [10.0**p * m for p in range(-9, 13) for m in (1, 2, 5)]
    bottom, top = max(m for m in marks if m <= low * 1.000001), min(m for m in marks if m >= high * 0.999999)
    return bottom, top if top > bottom else bottom * 10


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log10(high) - math.log10(low) or 1.0
    return lambda value: start + (math.log10(value) - math.log10(low)) / span * (end - start)


def spread(wanted: Sequence[float], step: float = _LABEL_STEP) -> list[float]:
    """Move labels apart, as little as needed, keeping their order."""
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    out = list(wanted)
    for before, after in pairwise(order):
        out[after] = max(out[after], out[before] + step)
    # What was pushed down past its place is pulled back half of the way.
    excess = max((out[n] - wanted[n] for n in order), default=0.0)
    return [value - excess / 2 for value in out]


def lines(
    title: str, subtitle: str, x_name: str, y_name: str, drawn: Sequence[Line], *, limit: float | None = None
) -> str:
    """Draw lines over two logarithmic axes, each named at its end; `limit` is a level that should not be passed."""
    drawn = [line for line in drawn if line.points]
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points] + ([limit] if limit else [])
    if not xs:
        return _frame(title, "not measured yet", 80, [])
    (x_low, x_high), (y_low, y_high) = _round_out(xs), _round_out(ys)
    x_at = _scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    y_at = _scale(y_low, y_high, HEIGHT - BOTTOM, TOP + 12)
    body = []
    for mark in _ticks(y_low, y_high):
        y = y_at(mark)
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        body.append(text(LEFT - 8, y + 4, plain(mark), anchor="end", size=12, colour=QUIET))
    for mark in _ticks(x_low, x_high):
        x = x_at(mark)
        body.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}" stroke="{QUIET}"/>'
        )
        body.append(text(x, HEIGHT - BOTTOM + 20, plain(mark), anchor="middle", size=12, colour=QUIET))
    body.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="{QUIET}"/>'
    )
    body.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_name, anchor="middle", size=12, colour=QUIET))
    body.append(text(16, TOP - 8, y_name, size=12, colour=QUIET))
    if limit:
        y = y_at(limit)
        body.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{QUIET}" stroke-dasharray="5 4"/>'
        )
        body.append(text(LEFT + 6, y - 5, f"limit {plain(limit)}", size=12, colour=QUIET))
    ends = spread([y_at(line.points[-1][1]) for line in drawn])
    for number, (line, label_y) in enumerate(zip(drawn, ends, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x_at(x), y_at(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        width = 3 if number == 0 else 1.8
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>'
        )
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 0.8:.1f}" fill="{colour}"/>' for x, y in places]
        end_x, end_y = places[-1]
        body.append(
            f'<path d="M{end_x + 6:.1f},{end_y:.1f} L{WIDTH - RIGHT + 12},{label_y:.1f}" stroke="{GRID}" fill="none"/>'
        )
        body.append(text(WIDTH - RIGHT + 16, label_y + 4, line.name, colour=colour, bold=number == 0))
    return _frame(title, subtitle, HEIGHT, body)


def bars(title: str, subtitle: str, unit: str, drawn: Sequence[Bar]) -> str:
    """Draw stacked bars, one below the other, the sum at the end of each, and what the colours mean."""
    if not drawn:
        return _frame(title, "not measured yet", 80, [])
    names = list(dict.fromkeys(name for bar in drawn for name in bar.parts))
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
    left, right, thick, gap = 190, 90, 24, 14
    widest = max(sum(bar.parts.values()) for bar in drawn) or 1.0
    body, x, y = [], 16.0, 66.0
    if len(names) > 1:
        for name in names:
            wide = 24 + 7.2 * len(name)
            if x + wide > WIDTH - 16:
                x, y = 16.0, y + 20
            body.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="12" height="12" rx="2" fill="{colours[name]}"/>')
            body.append(text(x + 17, y, name, size=12))
            x += wide
        y += 18
    for bar in drawn:
        body.append(text(left - 10, y + thick / 2 + 4, bar.name, anchor="end"))
        at = float(left)
        for name, value in bar.parts.items():
            wide = value / widest * (WIDTH - left - right)
            body.append(
                f'<rect x="{at:.1f}" y="{y:.1f}" width="{max(wide, 0.5):.1f}" height="{thick}" fill="{colours[name]}"/>'
            )
            at += wide
        body.append(text(at + 7, y + thick / 2 + 4, f"{sum(bar.parts.values()):.2f} {unit}", size=12, colour=QUIET))
        y += thick + gap
    return _frame(title, subtitle, int(y + 6), body)
