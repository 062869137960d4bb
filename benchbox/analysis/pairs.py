"""Which of two defences is better on the same images, and how small a difference could have been seen.

Everything here is a share in [0, 1], or a difference of two. NumPy and SciPy only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchbox.analysis.intervals import LEVEL, Interval, clopper_pearson
from benchbox.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A difference is called significant below this, after Holm's correction.
ALPHA = 0.05
#: How likely a difference has to be found for it to count as one that could have been.
POWER = 0.8
RESAMPLES = 10_000
FLIPS = 20_000
#: The fewest discordant samples, all one way, that McNemar's exact test calls significant: 2 / 2⁶ = 0.031.
FEWEST = 6
#: Sums of tenths are not exact; a flipped sum that equals the observed one must count.
_ROUNDING = 1e-9


class Significance(NamedTuple):
    """A p-value and the test it comes from."""

    p: float
    test: str


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p-value of McNemar's test (McNemar 1947; the binomial form, as `scipy.stats.binomtest`).

    Args:
        b: Samples that only the first defence classifies correctly.
        c: Samples that only the second one does.
    """
    if b + c == 0:
        return 1.0
    from scipy.special import bdtr  # scipy.stats would cost every report another second

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def sign_flip(differences: NDArray[np.float64], seed: int = 0, flips: int = FLIPS) -> float:
    """Two-sided p-value of the sign-flip permutation test for a mean of 0 (Fisher 1935).

    Where both defences are equally good on every image, swapping them on any image changes nothing. The
    observed arrangement counts as one of the permutations, so p is never 0.

    Args:
        differences: (N,) first minus second, of each sample.
        seed: Of the flips.
        flips: How many.
    """
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    # Of k equal differences Binomial(k, 1/2) keep their sign: exact, and needs no N × flips.
    kept = np.random.default_rng(seed).binomial(counts, 0.5, size=(flips, len(counts)))
    flipped = np.abs((2 * kept - counts) @ sizes)
    extreme = int((flipped >= abs(float(differences.sum())) - _ROUNDING).sum())
    return (1 + extreme) / (1 + flips)


def significance(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> Significance:
    """Whether two defences differ on the same samples.

    Exact McNemar where every sample is simply right or wrong; where it is right in a share of the draws,
    the sign-flip test on the expected correctness. On differences of -1, 0 and 1 the two are one test.

    Args:
        a: (N,) share of draws in which the first defence is right.
        b: (N,) likewise of the second.
        seed: Of the sign flips.

    Raises:
        DataError: There are no samples, or not the same number.
    """
    differences = _differences(a, b)
    if bool(np.isin(differences, (-1.0, 0.0, 1.0)).all()):
        return Significance(mcnemar(int((differences > 0).sum()), int((differences < 0).sum())), "exact McNemar")
    return Significance(sign_flip(differences, seed), "sign-flip permutation")


def bootstrap(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Percentile interval for the mean difference, resampling samples with both defences' results together.

    Where all differences are equal a bootstrap has no width. Then the interval allows for as many samples
    that differ otherwise as Clopper-Pearson allows for after none was seen.

    Args:
        a: (N,) share of draws in which the first defence is right.
        b: (N,) likewise of the second.
        seed: Of the resampling.
        resamples: How many; at least 1.
        level: Coverage, in (0, 1).

    Raises:
        DataError: There are no samples, or not the same number.
    """
    differences = _differences(a, b)
    n = len(differences)
    values, counts = np.unique(differences, return_counts=True)
    if len(values) == 1:
        unseen, same = clopper_pearson(0, n, level).high, float(values[0])
        return Interval(same - unseen * (1 + same), same + unseen * (1 - same))
    return _resampled_mean(tuple(values.tolist()), tuple(counts.tolist()), seed, resamples, level)


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Adjusted p-values, in the order given: reject where one is below alpha (Holm 1979, step-down).

    Valid however the tests depend on one another.
    """
    p = np.asarray(p_values, np.float64)
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    return [float(value) for value in adjusted]


def needed(difference: float, discordance: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """Samples it takes to find a difference with McNemar's test (Connor 1987).

    Args:
        difference: Between the two accuracies, in (0, discordance].
        discordance: Share of samples that exactly one of the two classifies correctly.
        alpha: Two-sided.
        power: Probability of finding it.
    """
    if not 0 < difference <= discordance <= 1:
        raise DataError(
            f"a difference of {difference} with discordance {discordance} is none; "
            "give 0 < difference <= discordance <= 1"
        )
    return math.ceil(_needed(difference, discordance, alpha, power))


def detectable(n: int, discordance: float, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The smallest difference that n samples could have found, with this discordance.

    The inverse of `needed`; and never less than what gives McNemar's exact test, with the same power, the
    six one-sided discordant samples below which it can reject nothing at 5 %. None where n is below six.

    Args:
        n: Samples.
        discordance: Share on which the two differ; for shares of draws, the mean squared difference.
        alpha: Two-sided.
        power: Probability of finding it.
    """
    if n < FEWEST:
        return None
    from scipy.optimize import brentq
    from scipy.special import betaincinv

    # P(Binomial(n, d) >= k) is the regularised incomplete beta function at d.
    least = float(betaincinv(FEWEST, n - FEWEST + 1, power))
    if discordance <= least or _needed(discordance, discordance, alpha, power) > n:
        return least
    solved = brentq(lambda d: _needed(d, discordance, alpha, power) - n, 1e-9, discordance)
    return max(least, float(solved))


def _needed(difference: float, discordance: float, alpha: float, power: float) -> float:
    from scipy.special import ndtri

    null = float(ndtri(1 - alpha / 2)) * math.sqrt(discordance)
    found = float(ndtri(power)) * math.sqrt(max(discordance - difference**2, 0.0))
    return ((null + found) / difference) ** 2


def _differences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise DataError(f"paired results need the same samples, at least one, got {a.shape} and {b.shape}")
    return np.asarray(a - b, np.float64)


@lru_cache(maxsize=4096)
def _resampled_mean(
    values: tuple[float, ...], counts: tuple[int, ...], seed: int, resamples: int, level: float
) -> Interval:
    """Percentile bootstrap interval for the mean of numbers of which each distinct value occurs so often.

    R draws leave few distinct means, so drawing how often each occurs is exact and needs no N × resamples.
    """
    n = sum(counts)
    drawn = np.random.default_rng(seed).multinomial(n, np.array(counts) / n, size=resamples)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn @ np.array(values) / n, [tail, 1 - tail])
    return Interval(float(low), float(high))
