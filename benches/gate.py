"""`make gate`: counts the instructions of every kernel and of the whole engine, and holds them against the counts of the last renewal.

Time on a busy machine says little about a few per cent; the number of instructions of one thread on fixed inputs says the same on every run.
callgrind counts them, on the vector paths up to AVX2 (valgrind knows no AVX-512) and on the scalar ones beside them. A kernel may take 2 %
more than its baseline, the whole engine 4 % (the order of hash tables is chance, and moves it by less than 1 %); more is a failure, and so
is a kernel without baseline. Fewer is no failure, and is named, so that the gain is held by a renewal.

    make gate                 judge
    make gate RENEW=1         write benches/micro/baseline.json anew; commit it with the reason
    make gate ARGS=cut        only those whose name holds `cut`

Counts belong to a compiler: after a change of Rust's version everything is renewed. Where valgrind cannot be had the gate is skipped and says
so; with CI=true that is a failure. Does not know time: what an instruction costs, caches and memory are benches/micro's criterion to tell.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import find_tool

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "benches/micro/baseline.json"
TOLERANCES = {"whole": 0.04}
TOLERANCE = 0.02
_COLLECTED = re.compile(r"Collected : (\d+)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one kernel."""

    name: str
    counted: int
    baseline: int | None

    @property
    def change(self) -> float:
        """How much more it takes than the baseline, as a share."""
        return 0.0 if not self.baseline else self.counted / self.baseline - 1

    @property
    def tolerance(self) -> float:
        """How much more it may take."""
        return TOLERANCES.get(self.name.split("/")[0], TOLERANCE)

    @property
    def word(self) -> str:
        """How it is judged."""
        if self.baseline is None:
            return "NO BASELINE"
        if self.failed:
            return "SLOWER"
        return "fewer: renew to hold it" if self.change < -self.tolerance else "ok"

    @property
    def failed(self) -> bool:
        """Whether the gate stays shut."""
        return self.baseline is None or self.counted > self.baseline * (1 + self.tolerance)


def program() -> Path:
    """The program that runs one kernel; built by `make gate`."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/gate"


def valgrind() -> str | None:
    """The system's valgrind, else the one of the tools' cache."""
    built = shutil.which("valgrind") or find_tool("valgrind")
    return None if built is None else str(built)


def kernels() -> list[str]:
    """Names of all kernels."""
    return subprocess.run([program(), "--list"], check=True, capture_output=True, text=True).stdout.split()


def count(name: str) -> int:
    """Count the instructions of one kernel's work.

    Raises:
        RuntimeError: the program failed, or callgrind counted nothing.
    """
    command = [
        valgrind() or "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=*gate::measured*",
    ]
    ended = subprocess.run([*command, program(), name], capture_output=True, text=True, check=False)
    found = _COLLECTED.search(ended.stderr)
    if ended.returncode != 0 or found is None or int(found[1]) == 0:
        raise RuntimeError(f"kernel could not be counted: name={name}, output={ended.stderr[-1000:]}")
    return int(found[1])


def why_not() -> str | None:
    """Say why the gate cannot be judged here, if so."""
    if valgrind() is None:
        return "valgrind is not installed; Debian has it under this name: apt-get install valgrind, or tests/tools/build.sh valgrind"
    if not any(line.startswith("flags") and " avx2" in line for line in Path("/proc/cpuinfo").read_text().splitlines()):
        return "this processor has no AVX2, and the baseline was counted with it"
    return None


def judge(counted: dict[str, int], baseline: dict[str, int]) -> list[Verdict]:
    """Hold counts against the baseline."""
    return [Verdict(name, number, baseline.get(name)) for name, number in counted.items()]


def table(verdicts: list[Verdict]) -> str:
    """Lay verdicts out, one a line."""
    lines = [f"{'kernel':<18}{'instructions':>16}{'baseline':>16}{'change':>9}  may  verdict"]
    for one in verdicts:
        base = "" if one.baseline is None else f"{one.baseline:,}"
        lines.append(f"{one.name:<18}{one.counted:>16,}{base:>16}{one.change:>+9.2%}  {one.tolerance:.0%}   {one.word}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 when something takes more than it may, or cannot be judged where it must.
    """
    parser = argparse.ArgumentParser(
        prog="make gate", description="Count instructions and hold them against the baseline."
    )
    parser.add_argument("words", nargs="*", help="only kernels whose name holds one of these")
    parser.add_argument("--renew", action="store_true", help="write the baseline anew")
    options = parser.parse_args(arguments)
    if (reason := why_not()) is not None:
        print(f"gate: skipped: {reason}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    started = time.monotonic()
    names = [n for n in kernels() if not options.words or any(word in n for word in options.words)]
    with ThreadPoolExecutor(2) as threads:
        counted = dict(zip(names, threads.map(count, names), strict=True))
    kept = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"rustc": "", "instructions": {}}
    compiler = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    verdicts = judge(counted, kept["instructions"])
    print(table(verdicts))
    print(f"{len(names)} kernels in {time.monotonic() - started:.0f} s")
    if options.renew:
        all_names = set(kernels())
        stay = {name: number for name, number in kept["instructions"].items() if name in all_names}
        text = json.dumps({"rustc": compiler, "instructions": stay | counted}, indent=2, sort_keys=True)
        BASELINE.write_text(text + "\n")
        print(f"written: {BASELINE.relative_to(ROOT)}")
        return 0
    if not any(one.failed for one in verdicts):
        return 0
    if kept["rustc"] != compiler:
        print(
            f"the baseline was counted with rustc {kept['rustc']}, this is {compiler}: make gate RENEW=1",
            file=sys.stderr,
        )
    print(
        "gate: shut: a kernel takes more than it may, or has no baseline; make it cheaper, or renew with the reason",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
