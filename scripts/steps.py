"""Runs make targets one after another, says how long each took, and ends in one table.

Used by `make lint`, `make test` and `make ci`, which are the same steps in other company. Promises: every step is run even
when one before it failed (unless that one was to prepare the rest), output streams through as it comes, the exit code is 1
when any step failed, and the last line counts tests over all runners, a skipped one never among the passed. A step that was
left out because the machine cannot do it is no failure and no pass: it is named, with its reason, once more at the end.

Does not know what a step does: it reads the closing lines of cargo test and pytest, and lines that begin with `SKIPPED: `,
and nothing else of their output. Runs on the bare interpreter, because `.venv/` may not exist yet.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
# When one of these fails, what comes after it has nothing to stand on.
PREPARING_STEPS = frozenset({"venv", "build"})
# Enough to hold the closing lines of every test program of one step.
TAIL_BYTES_MAX = 1 << 20

_CARGO_LINE = re.compile(rb"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
_PYTEST_LINE = re.compile(
    rb"^(?:=+ )?((?:\d+ (?:passed|failed|skipped|errors?|xfailed|xpassed|deselected|warnings?)(?:, )?)+) in [\d.]+s",
    re.MULTILINE,
)
_SKIPPED_LINE = re.compile(rb"^SKIPPED: (.+)$", re.MULTILINE)
_PYTEST_COUNT = re.compile(rb"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)")


@dataclass(slots=True)
class Counts:
    """Tests by outcome; `skipped` holds ignored and expected failures too."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __bool__(self) -> bool:
        """Tell whether any test was seen at all."""
        return bool(self.passed or self.failed or self.skipped)

    def __str__(self) -> str:
        """Say them the way test runners close."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(slots=True)
class Step:
    """One make target and how it ended; `exit_code` is None for one that was not run, `left_out` says why nothing of it was."""

    name: str
    exit_code: int | None = None
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)
    left_out: str = ""

    @property
    def result(self) -> str:
        """How it ended, in a word."""
        if self.exit_code is None:
            return "not run"
        if self.exit_code != 0:
            return "FAILED"
        return "SKIPPED" if self.left_out else "ok"


def why_left_out(output: bytes) -> str:
    """Tell why a step did nothing at all; empty for one that ran."""
    match = _SKIPPED_LINE.search(output)
    return match.group(1).decode(errors="replace").strip() if match and not count_tests(output) else ""


def count_tests(output: bytes) -> Counts:
    """Add up the closing lines of every cargo test and pytest run in `output`."""
    counts = Counts()
    for match in _CARGO_LINE.finditer(output):
        passed, failed, ignored = (int(group) for group in match.groups())
        counts.add(Counts(passed, failed, ignored))
    for line in _PYTEST_LINE.finditer(output):
        for number, outcome in _PYTEST_COUNT.findall(line.group(1)):
            if outcome == b"passed":
                counts.passed += int(number)
            elif outcome in (b"failed", b"error", b"errors", b"xpassed"):
                counts.failed += int(number)
            else:
                counts.skipped += int(number)
    return counts


def run(step: Step) -> None:
    """Run one make target, streaming what it prints; fills in how it ended."""
    print(f"\n=== {step.name}", flush=True)
    started = time.monotonic()
    tail = bytearray()
    child = subprocess.Popen(
        ["make", "--no-print-directory", step.name],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    # Ctrl-C reaches the whole foreground group by itself; SIGTERM reaches only us, and make passes it on to its children.
    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            child.terminate()
        raise KeyboardInterrupt

    previous = [(number, signal.signal(number, forward)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert child.stdout is not None
        while block := os.read(child.stdout.fileno(), 65536):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            tail += block
            del tail[:-TAIL_BYTES_MAX]
        step.exit_code = child.wait()
    except KeyboardInterrupt:
        # A terminal and make may both pass the signal on; the second must not cut short the wait for the children.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        child.wait()
        raise SystemExit(130) from None
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
    step.seconds = time.monotonic() - started
    step.counts, step.left_out = count_tests(bytes(tail)), why_left_out(bytes(tail))
    print(f"=== {step.name}: {step.result} in {step.seconds:.1f} s", flush=True)


def table(steps: list[Step]) -> str:
    """Lay out how every step ended, one a line, and the sum below."""
    lines = [f"{'step':<18}{'result':<10}{'seconds':>8}  tests"]
    total = Counts()
    for step in steps:
        lines.append(f"{step.name:<18}{step.result:<10}{step.seconds:>8.1f}  {step.counts or ''}".rstrip())
        total.add(step.counts)
    bad = [step.name for step in steps if step.exit_code != 0]
    lines.append(f"{'all':<18}{'FAILED' if bad else 'ok':<10}{sum(step.seconds for step in steps):>8.1f}")
    if bad:
        lines.append(f"failed or not run: {', '.join(bad)}; again by itself: make {bad[0]}")
    lines += [f"skipped: {step.name}: {step.left_out}" for step in steps if step.result == "SKIPPED"]
    if total:
        lines.append(str(total))
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Run the named make targets in order; returns the exit code."""
    steps = [Step(name) for name in names]
    for step in steps:
        run(step)
        if step.exit_code != 0 and step.name in PREPARING_STEPS:
            break
    print(f"\n{table(steps)}", flush=True)
    return 0 if all(step.exit_code == 0 for step in steps) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
