"""Runs that were measured, kept one a line, so that a row can be gone on with and a page be rendered anywhere.

One file a row, `measured/ROW.jsonl`, committed: the page rests on it. Each line is one run of one contender in one round. A run counts for
the sources that it measured: `subject` is a hash of everything that decides the speed of our side (rust/, the Python package, both lock
files), so that a change of a document or a test throws nothing away, and a change of the engine does. Promises that a line is whole or not
there. Does not know what a row is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("measured")
# What decides how fast our side is: the data path and the command that drives it. Tests, controllers and benches/ are not among it; a better way to
# measure is shown by its own commit.
SUBJECT_PATHS = (
    *(f"rust/{crate}/src" for crate in ("engine", "format", "store", "kernels", "python")),
    *(f"python/longshore/{room}" for room in ("cli", "datapath", "logs", "errors.py", "__init__.py")),
    "Cargo.toml",
    "Cargo.lock",
    "requirements.txt",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and of what runs were measured; runs of equal settings belong together.

    Attributes:
        subject: hash of the sources that were measured.
        machine: processor, cores and memory.
        scale: share of the row's full size.
    """

    subject: str
    machine: str
    scale: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender.

    Attributes:
        round: runs of one round stand beside one another.
        tool: `longshore` or a peer.
        profile: `default` or `tuned`.
        group: runs are compared within their group: the peer's name where the disk has no room for all repositories, else nothing.
        step: what was done, where a row times several.
        order: its place in the round.
        commit: HEAD when it was measured.
        figures: everything measured: wall_seconds, cpu_seconds, rss_mib, anon_mib, stored_bytes, requests…
        notes: the data, the versions, how busy the machine was.
    """

    setting: Setting
    round: int
    tool: str
    profile: str
    group: str
    step: str
    order: int
    commit: str
    figures: dict[str, float]
    notes: dict[str, Any] = field(default_factory=dict)


def machine() -> str:
    """Name this machine by what decides its speed."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} processors, {memory:.0f} GiB"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    """The commit that is checked out, with a mark when sources differ from it."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *SUBJECT_PATHS)
    return _git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")


def subject() -> str:
    """Hash the sources that decide our speed, as they lie in the working tree."""
    whole = hashlib.sha256()
    for name in _git("ls-files", "-z", "--", *SUBJECT_PATHS).split("\0"):
        path = ROOT / name
        if name and path.is_file() and not name.endswith((".md", ".pyi")):
            whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


class Keep:
    """The runs of one row on disk."""

    def __init__(self, row: str, folder: Path = FOLDER) -> None:
        """Name the row's file; nothing is made before the first run."""
        self.path = folder / f"{row}.jsonl"

    def all(self) -> list[Run]:
        """Every run, oldest first."""
        if not self.path.exists():
            return []
        runs = []
        for line in self.path.read_text().splitlines():
            raw = json.loads(line)
            runs.append(Run(setting=Setting(**raw.pop("setting")), **raw))
        return runs

    def of(self, setting: Setting) -> list[Run]:
        """The runs of one setting."""
        return [run for run in self.all() if run.setting == setting]

    def newest(self) -> list[Run]:
        """The runs of the setting that was measured last, at the largest scale that it was measured at."""
        runs = self.all()
        if not runs:
            return []
        scale = max(run.setting.scale for run in runs)
        last = [run for run in runs if run.setting.scale == scale][-1].setting
        return [run for run in runs if run.setting == last]

    def add(self, runs: Iterable[Run]) -> None:
        """Add runs: all of them or none."""
        text = "".join(json.dumps(asdict(run), sort_keys=True) + "\n" for run in runs)
        self.path.parent.mkdir(exist_ok=True)
        old = self.path.read_text() if self.path.exists() else ""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(old + text)
        temporary.replace(self.path)

    def only(self, wanted: Setting) -> None:
        """Forget runs of other sources of the same machine and scale: what is kept is the newest state, history is git's."""

        def stays(run: Run) -> bool:
            other = run.setting
            return other == wanted or (other.machine, other.scale) != (wanted.machine, wanted.scale)

        left = [run for run in self.all() if stays(run)]
        if len(left) != len(self.all()):
            self.path.unlink()
            if left:
                self.add(left)
