"""Longshore beside restic, on the same data, in the same run.

Holds the scenarios and their measurement: first backup, unchanged backup, restore into an empty folder; wall and CPU seconds of
the whole process, its peak memory, and the bytes that the repository takes. Both encrypt, both compress, both check what they
send (restic verifies its own blobs by default, longshore opens every pack). Runs alternate A B, B A, … in pairs; each row gives
medians and the median of the per-pair ratios, restic ÷ longshore. Every restore is compared with its source by tests/oracle.

Knows nothing of either tool's insides. Run it alone on the machine:

    .venv/bin/python -m benches.volume.compare --pairs 3 --write
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.oracle.compare import compare
from tests.support.components import require_tool

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.md")
PASSPHRASE = "a passphrase for a benchmark\n"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass(slots=True)
class Row:
    """All runs of one scenario and step, by tool."""

    name: str
    costs: dict[str, list[Cost]] = field(default_factory=lambda: {"longshore": [], "restic": []})
    stored: dict[str, list[int]] = field(default_factory=lambda: {"longshore": [], "restic": []})


def run(command: list[str], *, env: dict[str, str], log: Path, cwd: Path | None = None) -> Cost:
    """Run a process to its end and return what it took.

    Raises:
        RuntimeError: it ended with another code than 0; the end of its output is in the message.
    """
    with log.open("wb") as out:
        started = time.monotonic()
        child = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, cwd=cwd)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.send_signal(signal.SIGKILL)
            os.wait4(child.pid, 0)
            raise
        wall = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"command failed: exit_code={child.returncode}, command={command}, output={tail}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def settle() -> None:
    """Wait until what was written is on disk, so that one run does not pay for another."""
    os.sync()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        dirty = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Dirty:"))
        if int(dirty.split()[1]) < 50 * 1024:
            return
        time.sleep(0.2)


def size_of(folder: Path) -> int:
    """Sum of the sizes of all files below a folder, in bytes."""
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())


class Tool:
    """The commands of one program."""

    def __init__(self, name: str, binary: str, work: Path) -> None:
        """Take the program's path and a folder for its repository and cache."""
        self.name = name
        self.binary = binary
        self.repository = work / f"{name}-repository"
        self.cache = work / f"{name}-cache"
        self.log = work / f"{name}.log"
        self.secret = work / "passphrase"
        self.secret.write_text(PASSPHRASE)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(work),
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD_FILE": str(self.secret),
            "RESTIC_CACHE_DIR": str(self.cache),
            "LONGSHORE_REPOSITORY": self.repository.as_uri(),
            "LONGSHORE_KEY_FILE": str(work / "longshore-key"),
            "LONGSHORE_CACHE_DIR": str(self.cache),
        }

    def fresh(self) -> None:
        """Begin with an empty repository and no cache."""
        for folder in (self.repository, self.cache):
            shutil.rmtree(folder, ignore_errors=True)
        Path(self.env["LONGSHORE_KEY_FILE"]).unlink(missing_ok=True)
        command = ["repo", "init"] if self.name == "longshore" else ["init", "--repository-version", "2"]
        run([self.binary, *command], env=self.env, log=self.log)

    def backup(self, source: Path) -> Cost:
        """Back a folder up."""
        words = ["volume", "backup", "--volume", "bench", str(source)] if self.name == "longshore" else ["backup", "."]
        return run([self.binary, *words], env=self.env, log=self.log, cwd=source)

    def restore(self, target: Path) -> Cost:
        """Restore the newest snapshot into a folder that does not exist yet."""
        words = ["volume", "restore", "latest"] if self.name == "longshore" else ["restore", "latest", "--target"]
        return run([self.binary, *words, str(target)], env=self.env, log=self.log)


def real_tree(folder: Path, limit_bytes: int) -> None:
    """Copy what a machine has: interpreters, libraries, programs, documentation, up to a size."""
    left = limit_bytes
    sources = [
        Path(sysconfig.get_paths()["stdlib"]),
        Path("/usr/lib"),
        Path("/usr/share"),
        Path("/usr/bin"),
        Path("/usr/include"),
    ]
    for source in sources:
        for path in _files(source):
            size = path.stat().st_size
            if size > left:
                return
            target = folder / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            left -= size


def _files(folder: Path) -> Iterator[Path]:
    for name in sorted(folder.rglob("*")):
        if name.is_file() and not name.is_symlink() and os.access(name, os.R_OK):
            yield name


def small_files(folder: Path, count: int) -> None:
    """Make many small text files, sizes lognormal, cut from a pool of real text."""
    chance = random.Random(1)
    pool = b"".join(
        p.read_bytes() for p in list(_files(Path(sysconfig.get_paths()["stdlib"])))[:800] if p.suffix == ".py"
    )
    for number in range(count):
        if number % 100 == 0:
            parent = folder / f"{number // 10000:03d}" / f"{number // 100 % 100:02d}"
            parent.mkdir(parents=True)
        length = min(65536, max(40, int(chance.lognormvariate(7.6, 1.2))))
        start = chance.randrange(len(pool) - length)
        (parent / f"{number:07d}.txt").write_bytes(pool[start : start + length])


def large_files(folder: Path, total_bytes: int) -> None:
    """Make two large files: pages of a made-up database, and bytes that do not compress."""
    chance = random.Random(2)
    words = [f"{chance.getrandbits(40):x}" for _ in range(4000)]
    with (folder / "table.db").open("wb") as out:
        for page in range(total_bytes // 2 // 8192):
            rows = " ".join(chance.choices(words, k=500)).encode()[:8160]
            out.write(page.to_bytes(8, "little") + bytes(24) + rows.ljust(8160, b"\0"))
    with (folder / "media.bin").open("wb") as out:
        for _ in range(total_bytes // 2 // (1 << 20)):
            out.write(chance.randbytes(1 << 20))


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "real tree": lambda folder: real_tree(folder, 2 << 30),
    "100,000 small files": lambda folder: small_files(folder, 100_000),
    "two large files": lambda folder: large_files(folder, 2 << 30),
}


def measure(name: str, make: Callable[[Path], None], tools: list[Tool], work: Path, pairs: int) -> list[Row]:
    """Measure one scenario: its three steps, in pairs."""
    source = work / "source"
    source.mkdir()
    make(source)
    settle()
    subprocess.run(["tar", "-cf", "/dev/null", "-C", str(source), "."], check=True)  # warm, for both alike
    steps = {step: Row(f"{name}: {step}") for step in ("first", "unchanged", "restore")}
    for pair in range(pairs):
        for tool in tools if pair % 2 == 0 else tools[::-1]:
            tool.fresh()
            settle()
            steps["first"].costs[tool.name].append(tool.backup(source))
            steps["first"].stored[tool.name].append(size_of(tool.repository))
            settle()
            steps["unchanged"].costs[tool.name].append(tool.backup(source))
            target = work / f"target-{pair}-{tool.name}"
            settle()
            steps["restore"].costs[tool.name].append(tool.restore(target))
            differences = compare(source, target)
            if differences and tool.name == "longshore":
                raise RuntimeError(f"restore differs from its source: first={differences[0]}, count={len(differences)}")
            print(f"{name}: pair {pair + 1} of {pairs}: {tool.name} done", file=sys.stderr)
    for leftover in (source, *work.glob("target-*")):
        shutil.rmtree(leftover)
    return list(steps.values())


def render(rows: list[Row], versions: dict[str, str], pairs: int) -> str:
    """Turn rows into the page."""
    lines = [
        "# Longshore beside restic",
        "",
        "A first comparison. Printed by `.venv/bin/python -m benches.volume.compare --write`.",
        "",
        f"- {versions['longshore']}; {versions['restic']}; both encrypted, both compressed (defaults), both check what they send.",
        f"- {os.cpu_count()} processors, {platform.system()} {platform.release()}, {platform.machine()}; warm page cache; one disk.",
        f"- {pairs} pairs, order alternating; medians; *ratio*: median of restic ÷ longshore by pair.",
        "- Wall and CPU of the whole process, start included; peak is its largest resident size.",
        "",
        "| scenario | wall s (ours / restic) | ratio | CPU s | ratio | peak MiB | stored MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = row.costs["longshore"], row.costs["restic"]

        def pair(
            get: Callable[[Cost], float], ours: list[Cost] = ours, theirs: list[Cost] = theirs
        ) -> tuple[float, float, float]:
            ratios = [get(b) / max(get(a), 1e-6) for a, b in zip(ours, theirs, strict=True)]
            return statistics.median(map(get, ours)), statistics.median(map(get, theirs)), statistics.median(ratios)

        wall, cpu, peak = pair(lambda c: c.wall_seconds), pair(lambda c: c.cpu_seconds), pair(lambda c: c.peak_mib)
        stored = ""
        if row.stored["longshore"]:
            a, b = (statistics.median(row.stored[t]) / 1e6 for t in ("longshore", "restic"))
            stored = f"{a:.0f} / {b:.0f}"
        lines.append(
            f"| {row.name} | {wall[0]:.2f} / {wall[1]:.2f} | **{wall[2]:.2f}** | {cpu[0]:.2f} / {cpu[1]:.2f} | {cpu[2]:.2f} "
            f"| {peak[0]:.0f} / {peak[1]:.0f} | {stored} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    """Measure and print; with --write keep the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", choices=sorted(SCENARIOS), action="append", help="this scenario; may repeat")
    parser.add_argument("--write", action="store_true", help="write results.md")
    parser.add_argument("--work", type=Path, help="folder for data and repositories; needs 12 GB")
    arguments = parser.parse_args()
    longshore = str(ROOT / ".venv/bin/longshore")
    restic = str(require_tool("restic"))
    versions = {
        name: subprocess.run([binary, "version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
        for name, binary in (("longshore", longshore), ("restic", restic))
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="longshore-bench-") as folder:
        work = Path(folder)
        tools = [Tool("longshore", longshore, work), Tool("restic", restic, work)]
        for name, make in SCENARIOS.items():
            if not arguments.only or name in arguments.only:
                rows += measure(name, make, tools, work, arguments.pairs)
    page = render(rows, versions, arguments.pairs)
    print(page)
    if arguments.write:
        RESULTS.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
