"""The ends of a confidence sequence are where the likelihood ratio of its mixture reaches the bound, exactly."""

from __future__ import annotations

import math

import pytest
from scipy.stats import betabinom, binom

from benchbox.analysis.anytime import confidence_sequence
from benchbox.errors import DataError


@pytest.mark.parametrize(
    ("successes", "n", "level"), [(3, 10, 0.95), (50, 100, 0.95), (97, 100, 0.9), (1, 1000, 0.99), (9, 10, 0.5)]
)
def test_each_end_is_where_the_likelihood_ratio_reaches_its_bound(successes: int, n: int, level: float) -> None:
    low, high = confidence_sequence(successes, n, level)
    assert 0 < low < successes / n < high < 1
    for end in (low, high):
        ratio = betabinom.logpmf(successes, n, 0.5, 0.5) - binom.logpmf(successes, n, end)
        assert math.exp(ratio) == pytest.approx(1 / (1 - level), rel=1e-6)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_right_and_wrong_are_mirror_images_and_an_end_that_nothing_excludes_stays(n: int) -> None:
    none, every = confidence_sequence(0, n), confidence_sequence(n, n)
    assert (none.low, every.high) == (0, 1)
    assert none.high == pytest.approx(1 - every.low, abs=1e-9)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5])
def test_a_level_is_a_coverage(level: float) -> None:
    with pytest.raises(DataError, match="is no coverage"):
        confidence_sequence(1, 2, level)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_counts_are_a_share(successes: int, n: int) -> None:
    with pytest.raises(DataError, match="is no share"):
        confidence_sequence(successes, n)
