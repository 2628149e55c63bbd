"""A file of hints: what may have changed in which files since a snapshot, told by whoever keeps track (a storage system, a hypervisor, a filesystem).

JSON, one object a line. The first says what the hints are relative to::

    {"type": "hints", "since": "ls0-…", "taken_ns": 1767225600000000000}

Each other one is a file, as `os.stat` had it *before* it was asked what changed, and all ranges outside of which nothing has changed, as offset and length::

    {"type": "file", "path": "data/ibdata1", "size_bytes": 1048576, "mtime_ns": …, "ctime_ns": …, "ranges": [[0, 4096]]}

`path_base64` takes the place of `path` where a name is not UTF-8. Here lines become values; a line that is none is counted, told and passed over, as the
engine does with one that does not fit the volume. Whether a hint is true nobody can see.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, Final

from longshore.datapath import FileHint, Hints
from longshore.errors import UsageError

__all__ = ["HINTS_BYTES_MAX", "read_hints"]

HINTS_BYTES_MAX: Final = 64 << 20
_SNAPSHOT: Final = re.compile(r"ls0-[0-9a-f]{32}")
_U64_MAX: Final = (1 << 64) - 1
_I64_MAX: Final = (1 << 63) - 1


class _RefusedError(ValueError):
    """A line that is no hint."""


def read_hints(file: str, *, warn: Callable[[str], None]) -> Hints:
    """Read a file of hints.

    Args:
        file: its path.
        warn: told of each line that is passed over.

    Returns:
        What it says.

    Raises:
        UsageError: it cannot be read, is too long, or its first line does not say what it is.
    """
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - the name is a user's and stays as it was given
            text = stream.read(HINTS_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"a file of hints cannot be read: file={file}, error={error.strerror}") from error
    if len(text) > HINTS_BYTES_MAX:
        raise UsageError(
            f"a file of hints is too long: file={file}, limit_bytes={HINTS_BYTES_MAX}",
            "join ranges that lie close together",
        )
    head, *lines = text.split(b"\n")
    try:
        since, taken_ns = _head(_object(head))
    except _RefusedError as error:
        raise UsageError(
            f"a file of hints does not begin with what its hints are relative to: file={file}, error={error}",
            'write {"type": "hints", "since": "ls0-…", "taken_ns": …} as its first line',
        ) from error
    files: dict[bytes, FileHint] = {}
    doubled: set[bytes] = set()
    ignored = 0
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        try:
            hint = _file(_object(line))
            if hint.path in files or hint.path in doubled:
                ignored += files.pop(hint.path, None) is not None
                doubled.add(hint.path)
                raise _RefusedError("its file was named before")
        except _RefusedError as error:
            ignored += 1
            warn(f"warning: a hint is ignored: file={file}, line={number}, reason={error}")
        else:
            files[hint.path] = hint
    return Hints(since=since, taken_ns=taken_ns, files=list(files.values()), ignored=ignored)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _RefusedError("it is no JSON") from error
    if not isinstance(value, dict):
        raise _RefusedError("it is no object")
    return value


def _number(value: dict[str, Any], name: str, *, least: int = 0, most: int = _U64_MAX) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise _RefusedError(f"no number, or out of bounds: field={name}")
    return number


def _time(value: dict[str, Any], name: str) -> int:
    return _number(value, name, least=-_I64_MAX - 1, most=_I64_MAX)


def _head(value: dict[str, Any]) -> tuple[str, int]:
    since = value.get("since")
    if value.get("type") != "hints" or not isinstance(since, str) or _SNAPSHOT.fullmatch(since) is None:
        raise _RefusedError("its type is not hints, or since is no whole id of a snapshot")
    return since, _time(value, "taken_ns")


def _path(value: dict[str, Any]) -> bytes:
    try:
        match value:
            case {"path": str(text), **rest} if "path_base64" not in rest:
                path = text.encode()
            case {"path_base64": str(text), **rest} if "path" not in rest:
                path = base64.b64decode(text, validate=True)
            case _:
                raise _RefusedError("it names its file by neither path nor path_base64, or by both")
    except (UnicodeEncodeError, ValueError) as error:
        if isinstance(error, _RefusedError):
            raise
        raise _RefusedError("its path is not in the form that it claims") from error
    if b"\0" in path or any(part in {b"", b".", b".."} for part in path.split(b"/")):
        raise _RefusedError("its path is not one from the volume's root, such as a/b")
    return path


def _file(value: dict[str, Any]) -> FileHint:
    ranges = value.get("ranges")
    if value.get("type") != "file" or not isinstance(ranges, list):
        raise _RefusedError("its type is not file, or it has no list of ranges")
    pairs = []
    for pair in ranges:
        match pair:
            case [int(offset), int(length)] if 0 <= offset <= _U64_MAX and 0 <= length <= _U64_MAX:
                pairs.append((int(offset), int(length)))
            case _:
                raise _RefusedError("a range is not an offset and a length")
    return FileHint(
        path=_path(value),
        size_bytes=_number(value, "size_bytes"),
        mtime_ns=_time(value, "mtime_ns"),
        ctime_ns=_time(value, "ctime_ns"),
        ranges=pairs,
    )
