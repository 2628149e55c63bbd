"""`--sample SHARE` of commands that read data: one part of all packs at a time, so that in time all are read.

Which part a pack belongs to follows from its name alone, so parts stay what they are while packs come and go, and nothing has to be remembered between runs:
runs that count `--part` from 0 read every pack exactly once in one round. Without `--part` the day says which part it is (days since 1970-01-01 UTC, modulo
the number of parts): a run a day goes round by itself, and a run that is missed leaves its part for the next round.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final

import click

from longshore.cli.values import SHARE
from longshore.errors import UsageError

__all__ = ["share_of", "with_sample"]

_DAY_SECONDS: Final = 24 * 3600


def share_of(parts: int | None, part: int | None, *, now_seconds: float) -> tuple[int, int] | None:
    """Give which part is read, out of how many; None for everything.

    Args:
        parts: how many there are, or None when no share was asked for.
        part: the one that was asked for.
        now_seconds: the time, since 1970-01-01 UTC.

    Raises:
        UsageError: there is no such part.
    """
    if parts is None:
        if part is not None:
            raise UsageError("a part is one of a share", "say how large with --sample, for example --sample 5%")
        return None
    if part is None:
        part = int(now_seconds // _DAY_SECONDS) % parts
    if part >= parts:
        raise UsageError(f"there is no such part: part={part}, parts={parts}", f"count from 0 to {parts - 1}")
    return part, parts


def with_sample(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--sample` and `--part`; the command gets them as `share`, (part, parts) or None."""

    @click.option(
        "--sample",
        type=SHARE,
        metavar="SHARE",
        help="Read a share of the packs, for example 5%: another one each day, all of them in one round.",
    )
    @click.option(
        "--part", type=click.IntRange(min=0), metavar="N", help="With --sample: the part, from 0; else the day's."
    )
    @functools.wraps(function)
    def command(*args: Any, sample: int | None, part: int | None, **kwargs: Any) -> Any:
        return function(*args, share=share_of(sample, part, now_seconds=time.time()), **kwargs)

    return command
