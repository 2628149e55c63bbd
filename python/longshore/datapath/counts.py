"""What this process has asked of stores, and looked for in its caches, since it began: plain sums, for metrics.

They are of the whole process and never go back. A request that failed and was tried again counts twice, once as a failure; one
that the store's client had to ask in two parts counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longshore import _native

__all__ = ["Counts", "Lookups", "counts"]


@dataclass(frozen=True, slots=True)
class Lookups:
    """How often a copy was there and good, and how often the store had to be asked."""

    hits: int
    misses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Every name is there from the beginning, with nought."""

    store_requests: Mapping[str, int]
    """By verb: `put_new`, `get`, `get_range`, `head`, `list`, `delete`. Failed ones included."""
    store_errors: Mapping[str, int]
    """By kind: `unavailable`, `denied`, `no_space` and so on. `not_found` is often the answer that was hoped for."""
    cache_lookups: Mapping[str, Lookups]
    """By what copies are of: `index`, `snapshots`, `decisions`, `volume`."""


def counts() -> Counts:
    """Give the sums as they are now; cheap, and asks no store."""
    native = _native.counts()
    return Counts(
        store_requests=dict(native.store_requests),
        store_errors=dict(native.store_errors),
        cache_lookups={what: Lookups(hits, misses) for what, hits, misses in native.cache_lookups},
    )
