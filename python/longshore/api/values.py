"""Small values that travel as strings: times, durations, label values.

Promises: `Timestamp` and `Duration` are the text that came over the wire, unchanged, and are read only when someone asks; so an odd one is never rewritten,
and nonsense is an error where it is used, naming the text. What we make ourselves has one form: times in UTC with whole seconds and `Z`, as metav1.Time;
durations as Go prints them (`720h0m0s`), so that both compare equal with Velero's.

It does not know clocks.
"""

from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from longshore.errors import InvalidObjectError

__all__ = ["Duration", "Timestamp", "bytes_of_size", "fence_after_of", "parts_of_share", "valid_label_value"]

_TIME: Final = re.compile(
    r"(?P<stem>\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,9}))?(?P<zone>[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_NANOSECONDS_MAX: Final = 2**63 - 1
_LABEL_VALUE_LENGTH_MAX: Final = 63
_LABEL_HASH_LENGTH: Final = 6


class _WireText(str):
    """A string with a meaning; pydantic takes it from text and gives it back as it was."""

    __slots__ = ()
    _schema: ClassVar[dict[str, Any]]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(cls._schema)


class Timestamp(_WireText):
    """A point in time in RFC 3339, as `2026-11-21T09:30:00Z`."""

    __slots__ = ()
    _schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "date-time"}

    @classmethod
    def of(cls, time: datetime) -> Self:
        """Write a time as metav1.Time does: UTC, whole seconds (the fraction is cut off).

        Raises:
            ValueError: `time` has no zone.
        """
        if time.tzinfo is None:
            raise ValueError(f"a time without a zone cannot be written: time={time!r}")
        return cls(time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @property
    def time(self) -> datetime:
        """The time, in UTC; digits after the microsecond are cut off.

        Raises:
            InvalidObjectError: the text is no RFC 3339 time.
        """
        match = _TIME.fullmatch(self)
        if match:
            fraction = (match["fraction"] or "")[:6].ljust(6, "0")
            zone = "+00:00" if match["zone"] in "Zz" else match["zone"]
            try:
                return datetime.fromisoformat(f"{match['stem'].upper()}.{fraction}{zone}").astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        raise InvalidObjectError(f"not an RFC 3339 time: text={str(self)!r}", "write it as 2026-11-21T09:30:00Z")


_PERCENT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")


def parts_of_share(text: str) -> int:
    """Read a share such as `5%`: into how many parts, none of them larger than that, a whole falls.

    Raises:
        InvalidObjectError: it is no share from 0.01% to 100%.
    """
    match = _PERCENT.fullmatch(text.strip())
    percent = float(match[1]) if match else 0.0
    if not 0.01 <= percent <= 100:
        raise InvalidObjectError(f"this is no share: {text!r}", "write for example 5%")
    # 100/5 must not come to 20.000001.
    return math.ceil(round(100 / percent, 6))


_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b?)", re.IGNORECASE)
_SIZE_BYTES_END: Final = 1 << 63
"""The engine counts in 64 bits."""
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def bytes_of_size(text: str) -> int:
    """Read a size such as `512MiB`. Ki, Mi, Gi are powers of 1024; KB, MB, GB powers of 1000; a bare letter is taken as the former.

    Raises:
        InvalidObjectError: it is no size, less than a byte, or more than any store holds.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidObjectError(f"this is no size: {text!r}", "write for example 512MiB or 2GiB")
    decimal = match[3].lower() == "b" and match[2] != ""
    size = float(match[1]) * (1000 if decimal else 1024) ** _POWERS[match[2].lower()]
    if size < 1:
        raise InvalidObjectError("a size must be at least one byte", "write for example 512MiB or 2GiB")
    if size >= _SIZE_BYTES_END:
        raise InvalidObjectError(f"a size must be below 8 EiB: {text!r}", "write for example 512MiB or 2GiB")
    return int(size)


class Duration(_WireText):
    """A span of time in Go's notation, as `720h0m0s`, `1.5h` or `300ms`."""

    __slots__ = ()
    _schema: ClassVar[dict[str, Any]] = {"type": "string"}

    @classmethod
    def of(cls, span: timedelta) -> Self:
        """Write a span as Go's Duration.String does."""
        microseconds = span // timedelta(microseconds=1)
        sign, microseconds = ("-", -microseconds) if microseconds < 0 else ("", microseconds)
        if microseconds == 0:
            return cls("0s")
        if microseconds < 1_000:
            return cls(f"{sign}{microseconds}µs")
        if microseconds < 1_000_000:
            return cls(f"{sign}{_decimal(microseconds, 1_000)}ms")
        minutes, rest = divmod(microseconds, 60_000_000)
        hours, minutes = divmod(minutes, 60)
        seconds = _decimal(rest, 1_000_000)
        if hours:
            return cls(f"{sign}{hours}h{minutes}m{seconds}s")
        return cls(f"{sign}{minutes}m{seconds}s" if minutes else f"{sign}{seconds}s")

    @property
    def span(self) -> timedelta:
        """The span, cut to whole microseconds.

        Raises:
            InvalidObjectError: Go would not read this text, or it does not fit in 64 bits of nanoseconds.
        """
        text = self[1:] if self[:1] in {"-", "+"} else str(self)
        nanoseconds, place = 0, 0
        if text == "0":
            return timedelta(0)
        while place < len(text):
            part = _DURATION_PART.match(text, place)
            if part is None:
                break
            whole, _, fraction = part[1].partition(".")
            unit = _NANOSECONDS[part[2]]
            nanoseconds += int(whole or "0") * unit + int(fraction or "0") * unit // 10 ** len(fraction)
            if nanoseconds > _NANOSECONDS_MAX:
                break
            place = part.end()
        if not text or place < len(text):
            raise InvalidObjectError(f"not a duration: text={str(self)!r}", "write it as 720h0m0s, 90m or 30s")
        span = timedelta(microseconds=nanoseconds // 1_000)
        return -span if self.startswith("-") else span


def _decimal(count: int, unit: int) -> str:
    whole, rest = divmod(count, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


_DAYS: Final = re.compile(r"[0-9]{1,5}d", re.ASCII)
_FENCE_AFTER_MIN: Final = timedelta(hours=1)


def fence_after_of(text: str) -> int:
    """Read how long nothing of a session may change before it is judged dead, in seconds: Go's notation, or days as `3d`.

    Raises:
        InvalidObjectError: it is no span, or shorter than an hour: a backup that reads what is stored already sends nothing for that long.
    """
    trimmed = text.strip()
    try:
        span = timedelta(days=int(trimmed[:-1])) if _DAYS.fullmatch(trimmed) else Duration(trimmed).span
    except InvalidObjectError as err:
        raise InvalidObjectError(f"this is no span of time: {text!r}", "write for example 72h or 3d") from err
    if span < _FENCE_AFTER_MIN:
        raise InvalidObjectError(
            f"it is shorter than an hour, and a backup that finds nothing new sends nothing for longer: {text!r}",
            "write at least 1h; for a session whose process is known to be gone there is longshore repo prune --fence",
        )
    return int(span.total_seconds())


def valid_label_value(value: str) -> str:
    """Fit a name into a label value, as Velero does, so that both find the same objects.

    Args:
        value: a name of Kubernetes, that is ASCII.

    Returns:
        The name itself, or when it is longer than 63 characters its first 57 and the first 6 hex digits of its SHA-256.
    """
    if len(value) <= _LABEL_VALUE_LENGTH_MAX:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()
    return value[: _LABEL_VALUE_LENGTH_MAX - _LABEL_HASH_LENGTH] + digest[:_LABEL_HASH_LENGTH]
