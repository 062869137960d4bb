"""Tests of pairs: textbook numbers, coverage, the smallest difference, ties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchbox.analysis.pairs import bootstrap, detectable, holm, mcnemar, needed, sign_flip, significance
from benchbox.analysis.ranking import ranks
from benchbox.analysis.welch import welch
from benchbox.errors import DataError

N = 100


def shares(k: int, n: int = N) -> np.ndarray:
    """(n,): the first k are right."""
    return (np.arange(n) < k).astype(float)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 2**5),
        (6, 0, 2 / 2**6),
        (0, 6, 2 / 2**6),
        (10, 3, 2 * (1 + 13 + 78 + 286) / 2**13),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, rel=1e-12)


def test_mcnemar_is_scipys_binomial_test() -> None:
    for b in range(12):
        for c in range(1, 12):
            assert mcnemar(b, c) == pytest.approx(binomtest(min(b, c), b + c, 0.5).pvalue, rel=1e-12)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04: times 4, 3, 2, 1, and never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flip_of_ones_is_mcnemar() -> None:
    differences = np.array([1.0] * 10 + [-1.0] * 3 + [0.0] * 50)
    assert sign_flip(differences, flips=200_000) == pytest.approx(mcnemar(10, 3), abs=3e-3)


def test_sign_flip_enumerated() -> None:
    # All 16 sign patterns of .1, .2, .3, .4: |sum| reaches 1.0 in two and 0.8 in four.
    differences = np.array([0.1, 0.2, 0.3, 0.4])
    assert sign_flip(differences, flips=200_000) == pytest.approx(2 / 16, abs=3e-3)
    assert sign_flip(differences * [-1, 1, 1, 1], flips=200_000) == pytest.approx(4 / 16, abs=4e-3)
    assert sign_flip(np.ones(60), flips=999) == pytest.approx(1 / 1000)


def test_right_and_wrong_are_tested_by_mcnemar_and_shares_by_sign_flips() -> None:
    assert significance(shares(50), shares(40)) == (mcnemar(10, 0), "exact McNemar")
    assert significance(shares(50) * 0.9, shares(40)).test == "sign-flip permutation"
    with pytest.raises(DataError, match="the same samples"):
        significance(shares(50), shares(5, n=10))


@pytest.mark.parametrize("randomised", [False, True])
def test_the_bootstrap_covers(randomised: bool) -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        # A pair is right with .8 and .7, and correlated through a common difficulty.
        hard = rng.random(300)
        a, b = (hard < 0.8).astype(float), ((0.7 * hard + 0.3 * rng.random(300)) < 0.56).astype(float)
        if randomised:
            a = rng.binomial(10, 0.1 + 0.8 * a) / 10
        low, high = bootstrap(a, b, seed=trial, resamples=2000)
        truth = (0.74 if randomised else 0.8) - _second
        hits += low <= truth <= high
    # 95 % of 300 is 285, standard deviation 3.8.
    assert 272 <= hits <= 297


#: P(0.7 U + 0.3 V < 0.56) for uniform U, V: v averages (0.56 - 0.3 v) / 0.7 over [0, 1], never cut off.
_second = (0.56 - 0.15) / 0.7


def test_a_bootstrap_is_reproducible_and_about_normal() -> None:
    a, b = shares(600, 1000), shares(560, 1000)
    assert bootstrap(a, b, seed=3) == bootstrap(a, b, seed=3)
    low, high = bootstrap(a, b)
    half = 1.96 * np.sqrt((0.04 - 0.04**2) / 1000)
    assert (low, high) == pytest.approx((0.04 - half, 0.04 + half), abs=1.5e-3)


def test_no_difference_seen_is_not_certainty() -> None:
    low, high = bootstrap(shares(50), shares(50))
    # Clopper-Pearson after 0 of 100: 1 - .025^(1/100).
    assert (low, high) == pytest.approx((-(1 - 0.025**0.01), 1 - 0.025**0.01))
    low, high = bootstrap(np.ones(N), np.zeros(N))
    assert high == 1
    assert low == pytest.approx(1 - 2 * (1 - 0.025**0.01))


@pytest.mark.parametrize(
    ("difference", "discordance", "n"),
    [
        (0.01, 0.02, 1568),
        (0.01, 0.05, 3923),
        (0.01, 0.10, 7847),
        (0.01, 0.20, 15_696),
        (0.02, 0.05, 979),
        (0.02, 0.10, 1960),
        (0.02, 0.20, 3923),
        (0.05, 0.10, 312),
    ],
)
def test_the_detectable_difference_agrees_with_the_published_sizes(
    difference: float, discordance: float, n: int
) -> None:
    assert needed(difference, discordance) == n
    assert detectable(n, discordance) == pytest.approx(difference, rel=1e-3)


def test_too_few_discordant_samples_detect_nothing_small() -> None:
    least = detectable(1000, 0.0)
    assert least is not None
    # Six one-sided discordant samples have to turn up with 80 %.
    assert (np.random.default_rng(0).binomial(1000, least, 100_000) >= 6).mean() == pytest.approx(0.8, abs=0.005)
    assert detectable(5, 0.2) is None
    with pytest.raises(DataError, match="0 < difference"):
        needed(0.2, 0.1)


def test_welch_by_hand() -> None:
    # Means 2 and 5, variances 1 and 1, n = 3: t = -3 / sqrt(2/3), four degrees of freedom.
    found = welch([1, 2, 3], [4, 5, 6])
    assert found is not None
    assert found.p == pytest.approx(0.0213, abs=1e-4)
    assert found.interval == pytest.approx((-3 - 2.7764 * np.sqrt(2 / 3), -3 + 2.7764 * np.sqrt(2 / 3)), abs=1e-3)
    assert welch([0.9, 0.9, 0.9], [0.8, 0.8, 0.8]) is None


class Duels:
    """Shares of defences, and what some pairs have in common."""

    def __init__(
        self, *own: np.ndarray, common: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] | None = None
    ):
        self.own, self.common = own, common or {}

    def __len__(self) -> int:
        return len(self.own)

    def overall(self, i: int) -> float:
        return float(self.own[i].mean())

    def terms(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        return self.common.get((i, j), (self.own[i], self.own[j]))

    def means(self, i: int, j: int) -> tuple[float, float]:
        one, other = self.terms(i, j)
        return float(one.mean()), float(other.mean())

    def p(self, i: int, j: int) -> float:
        return significance(*self.terms(i, j)).p


def test_who_is_not_significantly_worse_than_the_leader_shares_its_rank() -> None:
    # 6 one-sided discordant samples: p = .031, but Holm over three comparisons makes it .094.
    assert ranks(Duels(shares(90), shares(84))) == [1, 2]
    assert ranks(Duels(shares(90), shares(84), shares(84), shares(84))) == [1, 1, 1, 1]
    assert ranks(Duels(shares(20), shares(90), shares(50), shares(52))) == [4, 1, 2, 2]
    assert ranks(Duels()) == []


def test_defences_are_ranked_on_what_both_went_through() -> None:
    # The second was spared what cost the first most: it looks better, and is worse wherever both were tried.
    whole, spared = shares(30), shares(60)
    common = {(0, 1): (shares(80), spared), (1, 0): (spared, shares(80))}
    assert ranks(Duels(whole, spared)) == [2, 1]
    assert ranks(Duels(whole, spared, common=common)) == [1, 2]


def test_ties_stand_together_even_where_a_better_row_is_not_one() -> None:
    # b is ten samples behind the leader on a subset of its own; c one more, scattered: not significant.
    leader = shares(50)
    b = shares(40)
    c = np.roll(shares(39), 45)
    assert ranks(Duels(leader, b, c)) == [1, 3, 1]
