"""Style of whole files, whatever their language: openings, length, and what may not be written anywhere.

Rules take a file's text and give trespasses. Does not know which files they are for: test_style.py says that.
"""

import re

from tests.unit.house import python_style, rust_style
from tests.unit.house.tree import Trespass

LINES_MAX = 500
_ELSEWHERE = re.compile(
    r"(?<![\w.*])/(?:root|work|farm)/[A-Za-z.]"
    r"|pypi\.org|files\.pythonhosted|\bcrates\.io/|index\.crates|proxy\.golang|registry\.npmjs|deb\.debian\.org"
)
# The project speaks of itself, not of how it came about.
_WORKSHOP = re.compile(
    r"\b(?:issues? ?#\d|issues? \d+\b|issues[ ]show|the (?:next|last|previous)[ ]issue|language[ ]model|AI[ ]agent)",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b500 lines\b")


def _comment_opening(text: str) -> str:
    """Give the `#` lines with which a script starts, its `#!` line left out."""
    lines = []
    for line in text.removeprefix("#!/usr/bin/env bash\n").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return "\n".join(lines).strip()


def _opening(text: str) -> str:
    """Give a file's opening by what it looks like; comments come first in Rust and in scripts, a docstring in Python."""
    return rust_style.opening(text) or _comment_opening(text) or python_style.opening_or_nothing(text)


def has_opening(text: str) -> list[Trespass]:
    """Every source file opens with what it holds, what it promises, what it does not know."""
    return [] if _opening(text) else [Trespass(1, "file has no opening that says what it holds")]


def has_reason_for_length(text: str) -> list[Trespass]:
    """A file over 500 lines says in its opening why: `Over 500 lines because …`."""
    lines = len(text.splitlines())
    if lines <= LINES_MAX or _REASON.search(_opening(text)):
        return []
    return [Trespass(0, f"file is long and its opening has no `Over 500 lines because …`: lines={lines}")]


def speaks_of_itself(text: str) -> list[Trespass]:
    """No path of a machine, no registry's host, no word of the workshop."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        found += [Trespass(number, f"path of a machine or registry host: {m[0]}") for m in _ELSEWHERE.finditer(line)]
        found += [Trespass(number, f"word of the workshop: {m[0]}") for m in _WORKSHOP.finditer(line)]
    return found
