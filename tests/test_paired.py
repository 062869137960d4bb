"""Tests of pairs: textbook numbers, coverage, the smallest difference, ties."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binomtest

from benchbox.analysis.all_pairs import p_values, ranks
from benchbox.analysis.pairs import bootstrap, detectable, holm, mcnemar, needed, sign_flip, significance
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


def placed(*rows: np.ndarray) -> list[int]:
    """The ranks of a table."""
    table = np.stack(rows)
    return ranks(table.mean(axis=1), p_values(table))


def test_all_pairs_at_once_are_the_pairs_one_by_one() -> None:
    generator = np.random.default_rng(0)
    table = (generator.random((7, 200)) < np.linspace(0.5, 0.9, 7)[:, None]).astype(float)
    table[3] = table[2]
    found = p_values(table)
    one_by_one = [[significance(a, b).p for b in table] for a in table]
    assert found == pytest.approx(np.array(one_by_one), rel=1e-9)
    # The same pairs beside a randomised row, which is counted in other numbers.
    assert p_values(np.vstack([table, table.mean(axis=0)]))[:7, :7] == pytest.approx(found, rel=1e-9)


def test_shares_of_draws_are_tested_by_a_bound_that_is_never_too_small() -> None:
    generator = np.random.default_rng(1)
    for n, gain in ((30, 0.1), (200, 0.03), (1000, 0.02)):
        a = generator.binomial(10, 0.5, n) / 10
        b = np.clip(a + generator.choice([-0.1, 0.0, 0.1], n) + gain * (generator.random(n) < 0.5), 0, 1)
        exact, bound = sign_flip(a - b, flips=200_000), p_values(np.stack([a, b]))[0, 1]
        assert exact - 2e-3 <= bound <= max(3.5 * exact, 1e-4) + 2e-3
    assert p_values(np.full((2, 50), 0.3)) == pytest.approx(np.ones((2, 2)))


@pytest.mark.parametrize("draws", [1, 10])
def test_equally_good_defences_share_the_first_rank_in_95_of_100_tables(draws: int) -> None:
    # The leader of the same data against the others, with Holm over those alone, errs in 16 to 21 of 100.
    generator, wrong, tables = np.random.default_rng(2), 0, 200
    for _ in range(tables):
        right = 0.6 * generator.random(500) + 0.4 * generator.random((20, 500)) < 0.5
        wrong += max(placed(*generator.binomial(draws, right) / draws)) > 1
    assert wrong <= 0.05 * tables


def test_a_rank_is_one_more_than_the_number_of_significantly_better_defences() -> None:
    # 6 one-sided discordant samples: p = .031, but Holm over six pairs makes it .19.
    assert placed(shares(90), shares(84)) == [1, 2]
    assert placed(shares(90), shares(84), shares(84), shares(84)) == [1, 1, 1, 1]
    assert placed(shares(20), shares(90), shares(50), shares(52)) == [4, 1, 2, 2]
    # The third is worse than the first alone.
    assert placed(shares(90), shares(84), shares(82)) == [1, 1, 2]
    assert ranks(np.empty(0), p_values(np.empty((0, 5)))) == []


def test_ranks_follow_the_printed_numbers() -> None:
    # b is ten samples behind the leader on a subset of its own; c one more, scattered: not significant, so b
    # cannot rank below it. Equal numbers rank alike.
    leader, b, c = shares(50), shares(40), np.roll(shares(39), 45)
    assert placed(leader, b) == [1, 2]
    assert placed(leader, b, c) == [1, 1, 1]
    assert placed(leader, b, np.roll(shares(40), 45)) == [1, 1, 1]
    assert placed(shares(90), np.zeros(N), np.zeros(N)) == [1, 2, 2]


def test_ten_thousand_cells_are_ranked_in_seconds() -> None:
    table = np.random.default_rng(0).random((500, 1000)) < 0.5
    start = time.perf_counter()
    placed(*table.astype(float))
    assert time.perf_counter() - start < 5
