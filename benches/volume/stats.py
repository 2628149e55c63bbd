"""Medians and intervals of per-pair ratios.

A machine's speed drifts while a row is measured, so two medians say less than the median of ratios between runs that stood beside one
another. The interval is the bootstrap's, percentile, of that median: with seven pairs it holds 95 %, with three it is the whole range, and
says so by its width. Promises the same answer for the same numbers. Knows nothing of what was measured.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 10_000
# A median may reach its figure and one unlucky pair not: the interval's lower end has this much room.
LOWER_END_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of some ratios with its 95 % interval."""

    median: float
    low: float
    high: float
    pairs: int

    def reaches(self, target: float) -> bool:
        """Tell whether the median reaches a figure, and the interval's lower end 85 % of it."""
        return self.median >= target and self.low >= LOWER_END_SHARE * target


def ratio(peer: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Compare runs that stood beside one another: peer ÷ ours, pair by pair.

    Raises:
        ValueError: the two are not equally long, or empty.
    """
    if not ours or len(peer) != len(ours):
        raise ValueError(f"pairs are not complete: peer={len(peer)}, ours={len(ours)}")
    # A clock that ticks in microseconds can give 0 for a process that did nothing.
    ratios = sorted(a / max(b, 1e-6) for a, b in zip(peer, ours, strict=True))
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]
    return Ratio(statistics.median(ratios), low, high, len(ratios))
