"""Rounds of verification: every part has its turn, whatever fails, and a damaged one is not forgotten."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.controllers.maintenance.rounds import Round

whole, damaged, silent = (True, True), (False, True), (False, False)
endings = st.sampled_from([whole, damaged, silent])


def play(found, parts, answers):
    """Let runs end as `answers` says of their parts; gives the round and the parts in their order."""
    seen = []
    for answer in answers:
        part = found.next_part(parts)
        seen.append(part)
        succeeded, reported = answer(part)
        found = found.after((part, parts), succeeded=succeeded, reported=reported)
        # What is written is what is read.
        assert Round.of(msgspec.json.decode(msgspec.json.encode(found.body())), turn=0) == found
    return found, seen


@given(st.integers(2, 12), st.data())
def test_every_part_has_its_turn_whatever_fails(parts, data):
    plan = data.draw(st.lists(endings, min_size=10 * parts, max_size=10 * parts))
    start = data.draw(st.integers(0, 5 * parts))
    found, _ = play(Round(turn=start), parts, [lambda _part, end=end: end for end in plan])
    seen, left = set(), iter(data.draw(st.lists(endings, min_size=10 * parts, max_size=10 * parts)))
    for end in left:
        found, (part,) = play(found, parts, [lambda _part, end=end: end])
        seen.add(part)
    assert seen == set(range(parts))


@given(st.integers(2, 12), st.sets(st.integers(0, 11), max_size=3))
def test_parts_that_stay_damaged_are_read_again_and_hide_no_other(parts, bad):
    bad = {part for part in bad if part < parts}
    found, seen = play(Round(), parts, [lambda part: damaged if part in bad else whole] * (4 * parts))
    assert set(seen) == set(range(parts)) and set(found.again) == bad
    # At most every second run is an extra one.
    assert found.turn >= 2 * parts
    mended, _ = play(found, parts, [lambda _part: whole] * (len(bad) + 1))
    assert mended.again == ()


def test_rounds_of_another_size_forget_what_parts_were():
    found, _ = play(Round(), 4, [lambda _part: damaged] * 3)
    assert found.again and found.next_part(5) == found.turn % 5
    assert found.after((found.next_part(5), 5), succeeded=True, reported=True).again == ()
    assert found.after(None, succeeded=True, reported=True).again == ()


@pytest.mark.parametrize(
    "body",
    [None, 7, [], {"turn": -1}, {"turn": "x", "again": 7}, {"parts": 10**9, "again": [-1, "x", 10**8], "silent": 99}],
)
def test_spoilt_round_is_a_round(body):
    found = Round.of(body, turn=3)
    assert 0 <= found.next_part(5) < 5
    assert found.after((found.next_part(5), 5), succeeded=False, reported=True).again == (found.next_part(5),)
