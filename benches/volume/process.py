"""Runs a program to its end and says what it took; keeps the machine quiet around it.

Wall time, CPU time of the process and of all its children that it waited for, largest resident size, and the largest anonymous memory
(RssAnon: heap and stacks, no mapped file and no page cache) of the process and its descendants, sampled every 10 ms: a shorter peak can be
missed, which is the same for all. Promises that a child does not outlive an interrupted run. Does not know what it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.01
_DIRTY_KIB_MAX = 50 * 1024
_SETTLE_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took.

    Attributes:
        rss_mib: largest resident size of one of its processes, mapped files included. As the kernel keeps it for the program itself:
            what `wait4` tells begins with the size of us who started it.
        anon_mib: largest anonymous memory.
    """

    wall_seconds: float
    cpu_seconds: float
    rss_mib: float
    anon_mib: float


class CommandFailedError(RuntimeError):
    """A program ended with a code that was not expected; the end of its output is in the message."""


def run(
    command: list[str],
    *,
    env: dict[str, str],
    log: Path,
    cwd: Path | None = None,
    allowed: tuple[int, ...] = (0,),
    timeout_seconds: float = 3600.0,
) -> Cost:
    """Run a process to its end and return what it took.

    Args:
        allowed: exit codes that are no failure.

    Raises:
        CommandFailedError: it ended otherwise, or not in time.
    """
    anon = _Sampler()
    with log.open("wb") as out:
        started = time.monotonic()
        child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, process_group=0
        )
        alarm = threading.Timer(timeout_seconds, _kill, [child.pid])
        alarm.daemon = True
        alarm.start()
        anon.watch(child.pid)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            _kill(child.pid)
            os.wait4(child.pid, 0)
            raise
        finally:
            wall = time.monotonic() - started
            alarm.cancel()
            anon.stop()
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in allowed:
        tail = log.read_text(errors="replace")[-2000:]
        raise CommandFailedError(f"command failed: exit_code={child.returncode}, command={command}, output={tail}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, anon.resident_kib / 1024, anon.peak_kib / 1024)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class _Sampler:
    def __init__(self) -> None:
        self.peak_kib = 0
        self.resident_kib = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._loop, args=[pid], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self, pid: int) -> None:
        while True:
            found = [memory_kib(one) for one in _family(pid)]
            self.peak_kib = max(self.peak_kib, sum(anon for anon, _ in found))
            self.resident_kib = max(self.resident_kib, *(most for _, most in found))
            if self._ended.wait(SAMPLE_SECONDS):
                return


def _family(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                todo += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found


def memory_kib(pid: int) -> tuple[int, int]:
    """Anonymous memory of a process now and its largest resident size so far, in KiB; zeros when it is gone."""
    anon = most = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                anon = int(line.split()[1])
            elif line.startswith("VmHWM:"):
                most = int(line.split()[1])
    except OSError:
        pass
    return anon, most


def settle() -> None:
    """Wait until what was written is on disk, so that one run does not pay for another."""
    os.sync()
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        dirty = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Dirty:"))
        if int(dirty.split()[1]) < _DIRTY_KIB_MAX:
            return
        time.sleep(0.2)


def steal_seconds() -> float:
    """Time that the hypervisor has taken from this machine since it started, over all processors."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def conditions() -> dict[str, float]:
    """How busy the machine is with others at this moment; kept beside each run."""
    stalled = 0.0
    with contextlib.suppress(OSError):
        line = Path("/proc/pressure/cpu").read_text().splitlines()[0]
        stalled = float(line.split("avg10=")[1].split()[0])
    return {"load": os.getloadavg()[0], "cpu_pressure": stalled, "steal_seconds": steal_seconds()}
