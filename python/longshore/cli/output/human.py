"""Sizes, times, counts and names as people read them.

Sizes are IEC (1 KiB = 1024 B). Every text that may hold foreign bytes passes :func:`printable` before it reaches a terminal: a tenant's file name must
not be able to colour, erase or retitle it, nor to turn the direction of reading.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["age", "count", "duration", "moment", "path_text", "plural", "printable", "ratio", "size"]

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# C0 and C1 controls, DEL, line and paragraph separators, bidirectional controls, and what surrogateescape made of foreign bytes.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(match[0], f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def printable(text: str) -> str:
    """Escape what a terminal would obey rather than show."""
    return _UNPRINTABLE.sub(_escaped, text)


def path_text(path: bytes) -> str:
    r"""A path for people; bytes that are not UTF-8 come as `\xNN`."""
    return printable(path.decode("utf-8", "surrogateescape"))


def size(count_bytes: float) -> str:
    """A number of bytes, e.g. `1.5 GiB`."""
    value = float(count_bytes)
    for unit in _UNITS:
        # 1023.95 would be written as 1024.0.
        if value < 1023.95 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 file`, `2,000 files`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """A span: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def age(seconds: float) -> str:
    """How long ago, in one short word as kubectl has it: `5s`, `12m`, `3h`, `4d`, `2y`."""
    whole = int(seconds)
    if whole < 0:
        return "future"
    for limit, unit, letter in (
        (120, 1, "s"),
        (7200, 60, "m"),
        (172800, 3600, "h"),
        (2 * 365 * 86400, 86400, "d"),
    ):
        if whole < limit:
            return f"{whole // unit}{letter}"
    return f"{whole // (365 * 86400)}y"


def moment(nanoseconds: int) -> str:
    """A point in time, RFC 3339 in UTC to the second."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns"


def ratio(larger: float, smaller: float) -> str | None:
    """How many times smaller something became, e.g. `4.2`; None when there is nothing to compare."""
    return f"{larger / smaller:.1f}" if smaller > 0 and larger > 0 else None
