"""The source tree as the rules see it: what belongs to the project, and what a broken rule looks like.

Promises: files of the index and new ones that git would add, never what .gitignore leaves out; so a file is judged before it is
committed. Does not know any rule.
"""

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Trespass:
    """One place where a rule does not hold; line 0 is the whole file."""

    line: int
    why: str


Rule = Callable[[str], list[Trespass]]


@cache
def project_files() -> tuple[str, ...]:
    """List paths relative to the root, sorted; deleted ones are left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return tuple(sorted({name for name in listed if name and (ROOT / name).is_file()}))


def files(*rooms: str, ending: str | tuple[str, ...] = "") -> list[str]:
    """List the project's files below `rooms` (all rooms when none is given) with such an ending."""
    return [name for name in project_files() if name.endswith(ending) and name.startswith(rooms or ("",))]


def read(name: str) -> str:
    """Read one file of the project; what is not text has no style and reads as empty."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def judge(rule: Rule, names: Iterable[str]) -> list[str]:
    """Apply a rule to files, and say each trespass as `path:line: why`."""
    return [f"{name}:{found.line}: {found.why}" for name in names for found in rule(read(name))]
