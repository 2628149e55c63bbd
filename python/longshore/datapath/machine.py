"""How much of this machine is ours: processors and memory, as the kernel's control groups and the CPU mask allow.

Containers see all of a node's processors and memory; what they may use stands in their control group and in those above it. A limit that cannot be read is no
limit. Both versions of control groups are understood.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["job_memory", "memory_limit_bytes", "workers"]

MIB: Final = 1 << 20
MEMORY_BYTES_MIN: Final = 64 * MIB
MEMORY_BYTES_BASE: Final = 60 * MIB
MEMORY_BYTES_WORKER: Final = 18 * MIB
"""What is of use, for all and for each worker. Measured on 115,000 files and 1.6 GB with two workers: five times as much took the same processor time."""
MEMORY_BYTES_MAX: Final = 1024 * MIB
_MEMORY_SHARE: Final = 4
_MEMORY_SHARE_JOBS: Final = 2
_UNLIMITED: Final = 1 << 60


def workers(*, root: Path = Path("/")) -> int:
    """Give how many threads may compute at once: the CPU mask, bounded by the quota, at least 1."""
    allowed = [float(len(os.sched_getaffinity(0))), *_cpu_quotas(root)]
    return max(1, math.floor(min(allowed)))


def memory_limit_bytes(*, root: Path = Path("/")) -> int:
    """Give what the engine's buffers may take: what is of use to its workers, at most a quarter of the control group's limit."""
    useful = min(MEMORY_BYTES_MAX, MEMORY_BYTES_BASE + MEMORY_BYTES_WORKER * workers(root=root))
    limits = [limit for limit in _memory_limits(root) if limit < _UNLIMITED]
    return min([useful, *(max(MEMORY_BYTES_MIN, limit // _MEMORY_SHARE) for limit in limits)])


def job_memory(jobs: int, *, total_bytes: int | None = None, root: Path = Path("/")) -> tuple[int, int]:
    """Share memory out among jobs that run at once in one process.

    Args:
        jobs: how many are wanted.
        total_bytes: what all of them may take; None: what is of use to each, all together at most half of the control group's limit.
        root: where `proc` and `sys` lie.

    Returns:
        How many fit, at least 1, and the bytes of each.
    """
    if total_bytes is None:
        limits = [limit for limit in _memory_limits(root) if limit < _UNLIMITED]
        total_bytes = min([memory_limit_bytes(root=root) * jobs, *(limit // _MEMORY_SHARE_JOBS for limit in limits)])
    fitting = max(1, min(jobs, total_bytes // MEMORY_BYTES_MIN))
    return fitting, max(MEMORY_BYTES_MIN, total_bytes // fitting)


def _cpu_quotas(root: Path) -> Iterator[float]:
    for group in _groups(root, controller="cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _groups(root, controller="memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        if limit.isdigit():
            yield int(limit)


def _groups(root: Path, *, controller: str) -> Iterator[Path]:
    """Give the folders of our control group and of those above it, for both versions."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers
        # In a container the path may be the node's, which is not mounted there: what is ours then lies at the base.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
