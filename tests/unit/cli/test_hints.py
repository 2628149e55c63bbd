"""A file of hints: what is understood, what is passed over, what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from longshore.cli.hints import HINTS_BYTES_MAX, read_hints
from longshore.errors import UsageError

SINCE = "ls0-" + "0123456789abcdef" * 2
HEAD = {"type": "hints", "since": SINCE, "taken_ns": 5}
FILE: dict[str, Any] = {
    "type": "file",
    "path": "a/b",
    "size_bytes": 9,
    "mtime_ns": -1,
    "ctime_ns": 2,
    "ranges": [[0, 4]],
}


def write(path: Path, *lines: object) -> str:
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
    return str(path)


def test_what_is_said_is_understood_whatever_the_bytes_of_a_name(tmp_path: Path) -> None:
    strange = bytes(range(1, 47)) + bytes(range(48, 256))
    other = {**FILE, "path_base64": base64.b64encode(strange).decode(), "ranges": []}
    del other["path"]
    told: list[str] = []
    hints = read_hints(write(tmp_path / "hints", HEAD, FILE, b"", other, b""), warn=told.append)
    assert (hints.since, hints.taken_ns, hints.ignored, told) == (SINCE, 5, 0, [])
    first, second = hints.files
    assert (first.path, first.size_bytes, first.mtime_ns, first.ctime_ns, first.ranges) == (b"a/b", 9, -1, 2, [(0, 4)])
    assert (second.path, second.ranges) == (strange, [])


@pytest.mark.parametrize(
    "change",
    [
        {"type": "hints"},
        {"path": "/a"},
        {"path": ""},
        {"path": "a//b"},
        {"path": "a/../b"},
        {"path": "a\0b"},
        {"path": "\ud800"},
        {"path": 3},
        {"path_base64": "YQ=="},
        {"size_bytes": -1},
        {"size_bytes": 1 << 64},
        {"size_bytes": True},
        {"size_bytes": 1.5},
        {"mtime_ns": None},
        {"ctime_ns": 1 << 63},
        {"ranges": None},
        {"ranges": [[0]]},
        {"ranges": [[0, -1]]},
        {"ranges": [["0", 1]]},
        {"ranges": [[0, 1, 2]]},
    ],
)
def test_a_line_that_is_no_hint_is_counted_and_told(tmp_path: Path, change: dict[str, Any]) -> None:
    told: list[str] = []
    good = {**FILE, "path": "good"}
    hints = read_hints(write(tmp_path / "hints", HEAD, {**FILE, **change}, good), warn=told.append)
    assert ([f.path for f in hints.files], hints.ignored, len(told)) == ([b"good"], 1, 1)
    assert "line=2" in told[0]


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_no_hint(tmp_path: Path, line: bytes) -> None:
    assert read_hints(write(tmp_path / "hints", HEAD, line), warn=lambda _: None).ignored == 1


def test_a_file_that_is_named_twice_has_no_hint(tmp_path: Path) -> None:
    told: list[str] = []
    file = write(tmp_path / "hints", HEAD, FILE, {**FILE, "path": "c"}, FILE, FILE)
    hints = read_hints(file, warn=told.append)
    assert ([f.path for f in hints.files], hints.ignored) == ([b"c"], 3)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        FILE,
        {**HEAD, "since": "latest"},
        {**HEAD, "since": SINCE[:-1]},
        {**HEAD, "taken_ns": "5"},
        {"type": "hints", "since": SINCE},
    ],
)
def test_without_what_they_are_relative_to_hints_are_refused(tmp_path: Path, head: object) -> None:
    with pytest.raises(UsageError):
        read_hints(write(tmp_path / "hints", head, FILE), warn=lambda _: None)


def test_what_cannot_be_read_or_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_hints(str(tmp_path / "none"), warn=lambda _: None)
    with open(tmp_path / "long", "wb") as file:
        file.truncate(HINTS_BYTES_MAX + 1)
    with pytest.raises(UsageError, match="too long"):
        read_hints(str(tmp_path / "long"), warn=lambda _: None)
