"""What words on the command line mean: sizes, tags, `SNAPSHOT[:PATH]`, patterns, compression.

Each turns text into a value or says what was expected, as click's own types do; nothing here looks at a disk but reading a file of patterns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

import click

from longshore.errors import LongshoreError, UsageError

__all__ = [
    "BYTES",
    "COMPRESSION",
    "FENCE_AFTER",
    "PART",
    "SHARE",
    "SNAPSHOT_PATH",
    "SPAN",
    "matcher",
    "parse_tags",
    "read_patterns",
]

_PART: Final = re.compile(r"(\d{1,6})/(\d{1,6})")
_LEVEL: Final = re.compile(r"-?[1-9][0-9]?")
LEVEL_MIN: Final = -7
LEVEL_MAX: Final = 19


class _Bytes(click.ParamType[int]):
    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from longshore.api.values import bytes_of_size

        try:
            return bytes_of_size(str(value))
        except LongshoreError as error:
            self.fail(f"{error.message} ({error.next_step})", param, ctx)


class _Compression(click.ParamType[str | int]):
    name = "auto|none|level"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        text = str(value)
        if text in {"auto", "none"}:
            return text
        if not (_LEVEL.fullmatch(text) and LEVEL_MIN <= int(text) <= LEVEL_MAX):
            self.fail(
                f"this is no compression: {text!r} (write auto, none or a zstd level, -7 to -1 or 1 to 19)", param, ctx
            )
        return int(text)


class _Share(click.ParamType[int]):
    """`5%` as the number of parts of which one is taken: 20."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from longshore.api.values import parts_of_share

        try:
            return parts_of_share(str(value))
        except LongshoreError as error:
            self.fail(f"{error.message} ({error.next_step})", param, ctx)


class _Part(click.ParamType[tuple[int, int]]):
    name = "part"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = _PART.fullmatch(str(value).strip())
        part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
        if part >= parts:
            self.fail(f"this is no part: {value!r} (write for example 0/20, the first of twenty)", param, ctx)
        return part, parts


class _Span(click.ParamType[float]):
    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from longshore.api.values import Duration

        try:
            seconds = Duration(str(value)).span.total_seconds()
        except (LongshoreError, ValueError, OverflowError):
            seconds = -1.0
        if seconds < 0.0:
            self.fail(f"this is no span of time: {value!r} (write for example 90s, 5m or 1h30m)", param, ctx)
        return seconds


class _FenceAfter(click.ParamType[int]):
    """How long nothing of a session may change before it is judged dead, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from longshore.api.values import fence_after_of

        try:
            return fence_after_of(str(value))
        except LongshoreError as error:
            self.fail(f"{error.message} ({error.next_step})", param, ctx)


class _SnapshotPath(click.ParamType[tuple[str, bytes]]):
    name = "snapshot[:path]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, bytes]:
        if isinstance(value, tuple):
            return value
        snapshot, _, path = str(value).partition(":")
        if not snapshot:
            self.fail(f"no snapshot is named: {value!r} (write an id, the beginning of one, or latest)", param, ctx)
        parts = [part for part in os.fsencode(path).split(b"/") if part not in {b"", b"."}]
        if b".." in parts:
            self.fail(f"a path in a snapshot starts at its root and has no ..: {value!r}", param, ctx)
        return snapshot, b"/".join(parts)


BYTES: Final = _Bytes()
COMPRESSION: Final = _Compression()
FENCE_AFTER: Final = _FenceAfter()
SNAPSHOT_PATH: Final = _SnapshotPath()
PART: Final = _Part()
SHARE: Final = _Share()
SPAN: Final = _Span()


def parse_tags(pairs: Iterable[str]) -> dict[str, str]:
    """Turn `key=value` words into tags.

    Raises:
        UsageError: no `=`, an empty key, or a key that comes twice.
    """
    tags: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"a tag is written key=value: tag={pair}")
        if key in tags:
            raise UsageError(f"a tag comes twice: key={key}")
        tags[key] = value
    return tags


def read_patterns(path: str) -> list[str]:
    """Read a file of patterns: one a line; empty lines and lines that start with # are skipped; blanks around a pattern are not part of it.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the name is a user's and stays as it was given
            lines = [line.strip() for line in file]
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"a file of exclude patterns cannot be read: file={path}, error={cause}") from error
    return [line for line in lines if line and not line.startswith("#")]


def matcher(pattern: str) -> re.Pattern[bytes]:
    """Compile a pattern for `find`, with the meaning that `--exclude` gives it.

    Without a slash it is for a name at any depth; with one it is for a path from the snapshot's root, where `*` stays within one component and `**` does not.

    Returns:
        An expression that fully matches whole paths.

    Raises:
        UsageError: the pattern is empty or has an open bracket.
    """
    trimmed = os.fsencode(pattern).rstrip(b"/")
    if not trimmed:
        raise UsageError(f"the pattern is empty: pattern={pattern}")
    anywhere = b"/" not in trimmed
    glob = trimmed.lstrip(b"/")
    out, at = [b"(?:.*/)?" if anywhere else b""], 0
    while at < len(glob):
        rest = glob[at:]
        if rest.startswith(b"**/"):
            out.append(b"(?:.*/)?")
            at += 3
        elif rest.startswith(b"**"):
            out.append(b".*")
            at += 2
        elif rest.startswith(b"*"):
            out.append(b"[^/]*")
            at += 1
        elif rest.startswith(b"?"):
            out.append(b"[^/]")
            at += 1
        elif rest.startswith(b"\\") and len(rest) > 1:
            out.append(re.escape(rest[1:2]))
            at += 2
        elif rest.startswith(b"["):
            end = rest.find(b"]", 3 if rest[1:2] in {b"!", b"^"} else 2)
            if end < 0:
                raise UsageError(f"a bracket is not closed: pattern={pattern}", "write [[] for a bracket itself")
            inner = rest[1:end]
            negated = inner[:1] in {b"!", b"^"}
            body = re.sub(rb"([\\\]\[^&~|])", rb"\\\1", inner[1:] if negated else inner)
            out.append(b"[" + (b"^/" if negated else b"") + body + b"]")
            at += end + 1
        else:
            out.append(re.escape(rest[:1]))
            at += 1
    try:
        return re.compile(b"".join(out), re.DOTALL)
    except re.error as error:
        raise UsageError(f"the pattern does not parse: error={error.msg}, pattern={pattern}") from error
