"""Which share of all packs a run reads."""

from __future__ import annotations

import click
import pytest

from longshore.cli.sampling import share_of
from longshore.cli.values import SHARE
from longshore.errors import UsageError

DAY = 24 * 3600


@pytest.mark.parametrize(("text", "parts"), [("5%", 20), ("100%", 1), ("3%", 34), ("0.1 %", 1000), ("33.4%", 3)])
def test_shares(text: str, parts: int) -> None:
    assert SHARE.convert(text, None, None) == parts


@pytest.mark.parametrize("text", ["5", "0%", "101%", "-5%", "", "half", "0.001%"])
def test_no_shares(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SHARE.convert(text, None, None)


def test_days_in_a_row_go_round_all_parts() -> None:
    seen = [share_of(20, None, now_seconds=20_000.5 * DAY + day * DAY) for day in range(40)]
    assert sorted(seen[:20]) == [(part, 20) for part in range(20)]
    assert seen[20:] == seen[:20]


def test_a_part_that_was_asked_for() -> None:
    assert share_of(4, 3, now_seconds=0) == (3, 4)
    assert share_of(None, None, now_seconds=0) is None
    for parts, part in [(4, 4), (None, 0)]:
        with pytest.raises(UsageError):
            share_of(parts, part, now_seconds=0)
