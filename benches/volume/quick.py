"""`make bench-quick`: a few small rows in minutes, beside restic, and once beside kopia; on the terminal alone.

For daily use: whoever changes the engine sees whether it still goes the right way. Small sizes exaggerate what starting a program costs,
and three pairs say little about a few per cent, so no figure of it stands anywhere. Does not judge.
"""

from __future__ import annotations

import sys
import time

from benches.volume.__main__ import main as bench

# Row, scale, peers: together less than ten minutes on two idle cores.
PLAN = [
    ("first-real", 0.08, "restic,kopia"),
    ("first-noise", 0.06, "restic"),
    ("first-database", 0.05, "restic"),
    ("unchanged", 0.1, "restic"),
    ("changed-files", 0.05, "restic"),
    ("restore-real", 0.08, "restic"),
    ("restore-file", 0.06, "restic"),
    ("verify", 0.08, "restic"),
]
PAIRS = 3


def main(arguments: list[str]) -> int:
    """Measure the plan, or the rows that are named; returns the exit code."""
    wanted = set(arguments)
    started = time.monotonic()
    code = 0
    for row, scale, peers in PLAN:
        if not wanted or row in wanted:
            words = ["--only", row, "--scale", str(scale), "--pairs", str(PAIRS), "--peers", peers]
            code |= bench([*words, "--profiles", "default", "--scratch"])
    print(f"\n{time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
