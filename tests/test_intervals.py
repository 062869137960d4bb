"""Intervals against SciPy and published values; the worst case against hand-made cases."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchbox.analysis import intervals, worst_case
from benchbox.errors import DataError

Shares = NDArray[np.float64]


@pytest.mark.parametrize(("k", "n"), [(0, 512), (1, 7), (350, 500), (97, 100), (10_000, 10_000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_clopper_pearson_is_scipys_exact_interval(k: int, n: int, level: float) -> None:
    exact = binomtest(k, n).proportion_ci(level, method="exact")
    assert intervals.clopper_pearson(k, n, level) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_no_success_in_512_leaves_room_for_072_percent() -> None:
    assert intervals.clopper_pearson(0, 512) == pytest.approx((0.0, 0.0072), abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_clopper_pearson_refuses_what_is_no_share(k: int, n: int) -> None:
    with pytest.raises(DataError, match=f"{k} of {n}"):
        intervals.clopper_pearson(k, n)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(DataError, match=r"95\.0"):
        intervals.clopper_pearson(1, 2, level=95.0)


def test_the_interval_of_shares_has_the_width_of_the_central_limit() -> None:
    means = np.random.default_rng(0).integers(0, 11, 2000) / 10
    low, high = intervals.mean_of_shares(means)
    half = 1.96 * means.std() / np.sqrt(len(means))
    assert low == pytest.approx(means.mean() - half, abs=half / 20)
    assert high == pytest.approx(means.mean() + half, abs=half / 20)


@pytest.mark.parametrize(("k", "n"), [(0, 100), (1, 100), (37, 100), (100, 100), (5000, 10_000)])
def test_of_right_and_wrong_it_is_clopper_pearsons(k: int, n: int) -> None:
    # So 10 draws of each image that all come out alike add nothing: the width is that of n coins.
    assert intervals.mean_of_shares(np.arange(n) < k) == pytest.approx(intervals.clopper_pearson(k, n), abs=1e-9)


def test_a_few_odd_draws_claim_no_more_than_none() -> None:
    nothing, odd = np.zeros(1000), np.zeros(1000)
    odd[0] = 0.2  # 0.02 % had [0, 0.06 %] where 0 has [0, 0.37 %]
    low, high = intervals.mean_of_shares(odd)
    assert 0 < low < 0.0002 < intervals.mean_of_shares(nothing).high < high < 0.005
    assert intervals.mean_of_shares(1 - odd) == pytest.approx((1 - high, 1 - low))


def rare(share: float, right: float, mirrored: bool = False) -> Callable[[np.random.Generator, int], Shares]:
    """Images of which a few are right in some of ten draws, and the others never."""

    def drawn(generator: np.random.Generator, n: int) -> Shares:
        means = generator.binomial(10, right, n) / 10 * (generator.random(n) < share)
        return 1 - means if mirrored else means

    return drawn


@pytest.mark.parametrize(
    ("drawn", "truth"),
    [
        (rare(0.017, 0.1), 0.0017),  # a bootstrap covers this in 91.5 of 100
        (rare(0.017, 0.1, mirrored=True), 1 - 0.0017),
        (rare(0.005, 0.34), 0.0017),
        (rare(0.05, 0.5), 0.025),
        (lambda generator, n: generator.binomial(10, 0.5, n) / 10, 0.5),
        (lambda generator, n: generator.beta(0.05, 0.95, n), 0.05),
        (lambda generator, n: np.where(generator.random(n) < 0.005, 1, 0.5), 0.5025),
    ],
)
@pytest.mark.parametrize("n", [100, 1000])
def test_the_interval_of_shares_covers(
    drawn: Callable[[np.random.Generator, int], Shares], truth: float, n: int
) -> None:
    generator, trials = np.random.default_rng(1), 1000
    found = [intervals.mean_of_shares(drawn(generator, n)) for _ in range(trials)]
    hits = sum(low <= truth <= high for low, high in found)
    # Two standard deviations of chance below 95 %.
    assert hits >= 936


def test_two_thousand_intervals_take_about_a_second() -> None:
    means = np.random.default_rng(0).integers(0, 11, 1000) / 10
    start = time.perf_counter()
    for _ in range(2000):
        intervals.mean_of_shares(means)
    assert time.perf_counter() - start < 4


def test_equal_means_do_not_claim_certainty() -> None:
    assert intervals.mean_of_shares(np.ones(100)) == pytest.approx(intervals.clopper_pearson(100, 100))
    # An image of another kind may be missing: 1 - .025^(1/100) of them at most.
    unseen = 1 - 0.025**0.01
    expected = (0.3 - 0.3 * unseen, 0.3 + 0.7 * unseen)
    assert intervals.mean_of_shares(np.full(100, 0.3)) == pytest.approx(expected)


@pytest.mark.parametrize("means", [np.array([]), np.array([0.5, 1.5]), np.array([np.nan])])
def test_an_interval_refuses_what_is_no_share(means: NDArray[np.float64]) -> None:
    with pytest.raises(DataError):
        intervals.mean_of_shares(means)


def test_worst_case_of_deterministic_attacks_is_the_minimum() -> None:
    a = np.array([[True], [True], [False], [False]])
    b = np.array([[True], [False], [True], [False]])
    assert worst_case.worst_case([a, b]).tolist() == [1, 0, 0, 0]


def test_worst_case_chooses_and_scores_on_different_draws() -> None:
    even_says_a = np.array([[False, True, False, True]])  # right on odd draws only
    always = np.array([[True, True, True, True]])
    # Even draws choose the first, which scores 1 on odd ones. Odd draws cannot tell them apart and take the
    # first as well, which scores 0 on even ones.
    assert worst_case.worst_case([even_says_a, always]).tolist() == [0.5]


def test_worst_case_of_pure_luck_is_the_expected_accuracy() -> None:
    # No attack does anything: each prediction is right with probability 0.8 whatever the image.
    generator = np.random.default_rng(0)
    attacks = [generator.random((4000, 10)) < 0.8 for _ in range(8)]
    naive = np.minimum.reduce([a.mean(axis=1) for a in attacks]).mean()
    assert naive < 0.65
    assert worst_case.worst_case(attacks).mean() == pytest.approx(0.8, abs=0.01)


def test_worst_case_does_not_depend_on_the_order_of_attacks() -> None:
    generator = np.random.default_rng(1)
    attacks = [generator.random((200, 10)) < q for q in (0.4, 0.5, 0.9)]
    assert worst_case.worst_case(attacks).tolist() == worst_case.worst_case(attacks[::-1]).tolist()


def test_ties_go_to_the_stronger_attack() -> None:
    weak, strong = np.ones((10, 4), bool), np.ones((10, 4), bool)
    strong[1:] = False
    strong[0, 1] = False  # ties with `weak` on the even draws of sample 0
    assert worst_case.worst_case([weak, strong])[0] == pytest.approx((0.5 + 1.0) / 2)


@pytest.mark.parametrize("shapes", [[], [(3, 1), (4, 1)], [(3, 0)]])
def test_worst_case_refuses_arrays_that_do_not_match(shapes: list[tuple[int, int]]) -> None:
    with pytest.raises(DataError, match="worst case"):
        worst_case.worst_case([np.ones(shape, bool) for shape in shapes])


def test_majority_vote_and_its_ties() -> None:
    predictions = np.array([[1, 2, 2], [3, 1, 2], [1, 3, 2], [0, 0, 1]])
    assert worst_case.majority_vote(predictions, np.array([2, 3, 3, 1])).tolist() == [True, True, False, False]


def test_worst_of_r_needs_every_draw() -> None:
    assert worst_case.worst_of_r(np.array([[True, True], [True, False]])).tolist() == [True, False]
