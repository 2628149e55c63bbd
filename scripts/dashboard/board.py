"""The dashboard's JSON as panels: what each asks, where it stands, how its series are called.

Promises: what the picture could not show as Grafana would is refused by name, never left out: another type of panel, an unknown unit, a variable that nothing
fills.

Does not know: Prometheus, nor how a panel is drawn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.dashboard.units import UNITS

__all__ = ["BoardError", "Panel", "Target", "called", "fill", "metric_names", "overlaps", "read"]

KINDS = frozenset({"stat", "timeseries"})
COLUMNS = 24
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_METRIC = re.compile(r"\b(?:longshore|velero|workqueue|podVolume)_\w+")


class BoardError(Exception):
    """The dashboard and what the picture was to be made from do not fit together."""


@dataclass(frozen=True, slots=True)
class Target:
    """One question of a panel, and how the series of its answer are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; its place in Grafana's grid of 24 columns, `steps` the colours of a number by the value from which they hold."""

    title: str
    kind: str
    unit: str
    description: str
    x: int
    y: int
    width: int
    height: int
    targets: tuple[Target, ...]
    bottom: float | None
    steps: tuple[tuple[float, str], ...]


def read(text: str) -> tuple[str, list[Panel]]:
    """Read the dashboard.

    Args:
        text: its JSON.

    Returns:
        Its title and its panels.

    Raises:
        BoardError: something in it cannot be drawn.
    """
    found = json.loads(text)
    panels = [_panel(one) for one in found["panels"]]
    if wrong := overlaps(panels):
        raise BoardError(f"panels lie on one another or beyond the grid: {', '.join(wrong)}")
    return str(found["title"]), panels


def _panel(one: Mapping[str, Any]) -> Panel:
    title, place, defaults = str(one["title"]), one["gridPos"], one["fieldConfig"]["defaults"]
    unit = str(defaults.get("unit", "none"))
    if one["type"] not in KINDS:
        raise BoardError(f"a panel is of a type that cannot be drawn: panel={title!r}, type={one['type']}")
    if unit not in UNITS:
        raise BoardError(f"a panel has a unit that cannot be written: panel={title!r}, unit={unit}")
    steps = defaults.get("thresholds", {}).get("steps", [])
    return Panel(
        title=title,
        kind=str(one["type"]),
        unit=unit,
        description=str(one.get("description", "")),
        x=int(place["x"]),
        y=int(place["y"]),
        width=int(place["w"]),
        height=int(place["h"]),
        targets=tuple(Target(str(t["expr"]), str(t.get("legendFormat", ""))) for t in one["targets"]),
        bottom=defaults.get("min"),
        steps=tuple((float("-inf") if s["value"] is None else float(s["value"]), str(s["color"])) for s in steps),
    )


def overlaps(panels: Iterable[Panel]) -> list[str]:
    """Name panels that take a place which is taken, or does not exist."""
    taken: set[tuple[int, int]] = set()
    wrong = []
    for panel in panels:
        cells = {(x, y) for x in range(panel.x, panel.x + panel.width) for y in range(panel.y, panel.y + panel.height)}
        if not cells or cells & taken or panel.x < 0 or panel.y < 0 or panel.x + panel.width > COLUMNS:
            wrong.append(panel.title)
        taken |= cells
    return wrong


def metric_names(expr: str) -> set[str]:
    """Names of our metrics in an expression."""
    return set(_METRIC.findall(expr))


def fill(expr: str, values: Mapping[str, str]) -> str:
    """Put values in the place of `$name` and `${name}`.

    Raises:
        BoardError: one is unknown.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise BoardError(f"an expression holds a variable that nothing fills: variable={name}, expression={expr}")
        return values[name]

    return _VARIABLE.sub(value, expr)


def called(legend: str, labels: Mapping[str, str]) -> str:
    """Say what a series is called: the legend's format filled in, or all labels where there is none."""
    if legend:
        return _LABEL.sub(lambda match: labels.get(match[1], ""), legend).strip()
    rest = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return f"{labels.get('__name__', '')}{{{rest}}}"
