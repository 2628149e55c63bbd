"""Medians and intervals of ratios: what is known by hand comes out, and what is not complete is refused."""

import pytest
from benches.volume.stats import Ratio, ratio


def test_median_of_ratios_is_not_ratio_of_medians():
    found = ratio([10, 20, 90], [1, 10, 30])
    assert (found.median, found.pairs) == (3.0, 3)


def test_interval_of_three_pairs_is_their_range():
    found = ratio([2, 3, 4], [1, 1, 1])
    assert (found.low, found.high) == (2.0, 4.0)


def test_interval_of_seven_pairs_leaves_a_stray_out():
    found = ratio([5, 5, 5, 5, 5, 5, 50], [1] * 7)
    assert (found.low, found.median, found.high) == (5.0, 5.0, 5.0)
    spread = ratio([1, 2, 3, 4, 5, 6, 7], [1] * 7)
    # Of the bootstrap's medians 2.5 % lie at or below the second, and as many at or above the sixth.
    assert (spread.low, spread.median, spread.high) == (2.0, 4.0, 6.0)


def test_same_numbers_give_the_same_interval():
    ours, theirs = [1.0, 1.1, 0.9, 1.2, 1.0], [3.0, 2.5, 4.0, 3.1, 2.9]
    assert ratio(theirs, ours) == ratio(theirs, ours)


@pytest.mark.parametrize(("peer", "ours"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_incomplete_pairs_are_refused(peer, ours):
    with pytest.raises(ValueError, match="pairs are not complete"):
        ratio(peer, ours)


@pytest.mark.parametrize(
    ("median", "low", "reached"), [(3.0, 2.55, True), (3.0, 2.54, False), (2.99, 2.9, False), (4.0, 3.5, True)]
)
def test_a_figure_needs_the_median_and_85_percent_at_the_lower_end(median, low, reached):
    assert Ratio(median, low, 9.0, 7).reaches(3.0) is reached
