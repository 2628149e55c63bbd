"""Values as Grafana writes them, by the names of its units, and marks for an axis at round ones.

Promises: marks have equal distances, cover all values, and are few; a value is written in the unit that makes it short, binary for bytes.

Does not know: panels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["UNITS", "marks", "written"]

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_SPANS = ((86400.0, "day", "days"), (3600.0, "hour", "hours"), (60.0, "min", "mins"))
_SECONDS = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0)  # fmt: skip
_MARKS_MAX = 5


def _number(value: float) -> str:
    """Three digits that count, and no trailing noughts."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _bytes(value: float, behind: str = "") -> str:
    power = 0
    while abs(value) >= 1024 and power < len(_BINARY) - 1:
        value, power = value / 1024, power + 1
    return f"{_number(value)} {_BINARY[power]}B{behind}"


def _seconds(value: float) -> str:
    for limit, one, many in _SPANS:
        if abs(value) >= limit:
            number = _number(value / limit)
            return f"{number} {one if number == '1' else many}"
    return f"{_number(value * 1000)} ms" if 0 < abs(value) < 1 else f"{_number(value)} s"


UNITS: dict[str, Callable[[float], str]] = {
    "none": _number,
    "s": _seconds,
    "bytes": _bytes,
    "binBps": lambda value: _bytes(value, "/s"),
    "percentunit": lambda value: f"{_number(value * 100)}%",
}


def written(value: float, unit: str) -> str:
    """Write a value with its unit."""
    return UNITS[unit](value)


def _steps(unit: str, least: float) -> float:
    """Give the smallest round step that is not below the least one."""
    if unit == "s" and 1 <= least <= _SECONDS[-1]:
        return next(step for step in _SECONDS if step >= least)
    base = 1024.0 if unit in {"bytes", "binBps"} else 1000.0
    power = base ** math.floor(math.log(least, base))
    round_ones = (1, 2, 5, 10, 20, 50, 100, 200, 500) if base == 1000 else (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    return next((power * one for one in round_ones if power * one >= least * 0.999999), power * base)


def marks(low: float, high: float, unit: str) -> list[float]:
    """Give round values for an axis, from at most the lowest to at least the highest."""
    # What differs by less than this is one value, and one value has room above it.
    if high - low < max(1.0, abs(low)) * 1e-9:
        high = low + max(1.0, abs(low))
    step = _steps(unit, (high - low) / _MARKS_MAX)
    if unit == "none" and high - low >= 1:
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]
