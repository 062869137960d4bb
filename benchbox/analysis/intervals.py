"""How sure a share of images is: confidence intervals. NumPy and SciPy only, no torch.

Everything here is a share in [0, 1]; reports turn shares into percent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchbox.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Coverage of every interval in the reports.
LEVEL = 0.95
#: An interval that is wider than this to either side gives no place of its own, only a group (check D1).
PLACE = 0.01


class Interval(NamedTuple):
    """A confidence interval for a share."""

    low: float
    high: float


@lru_cache(maxsize=4096)
def clopper_pearson(k: int, n: int, level: float = LEVEL) -> Interval:
    """Exact interval for a binomial share: never covers less than `level` (Clopper & Pearson 1934).

    Args:
        k: Successes.
        n: Trials, at least 1.
        level: Coverage, in (0, 1).

    Raises:
        DataError: The counts or the level do not fit.
    """
    if not 0 <= k <= n or n < 1:
        raise DataError(f"{k} of {n} is no share; give 0 <= k <= n with n of at least 1")
    _check_level(level)
    from scipy.special import betaincinv  # a tenth of a second that planning should not pay

    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return Interval(low, high)


def cluster_bootstrap(
    means: NDArray[np.float64], seed: int = 0, resamples: int = 10_000, level: float = LEVEL
) -> Interval:
    """Percentile interval for the mean of per-sample means, keeping each sample's draws together.

    Samples are the clusters: a randomised defence is scored R times on the same image, and R draws of one
    image are no R images. Where all means are equal a bootstrap has no width at all; then the interval is
    Clopper-Pearson's for as many successes, which claims less.

    Args:
        means: (N,) share of correct draws of each sample, in [0, 1].
        seed: Of the resampling.
        resamples: How many; at least 1.
        level: Coverage, in (0, 1).

    Raises:
        DataError: There are no samples, or a mean is no share.
    """
    if len(means) == 0 or not bool(((means >= 0) & (means <= 1)).all()):
        raise DataError("a bootstrap needs at least one sample, and shares in [0, 1]; drop what was not scored")
    _check_level(level)
    values, counts = np.unique(means, return_counts=True)
    if len(values) == 1:
        return clopper_pearson(round(float(values[0]) * len(means)), len(means), level)
    return resampled_mean(tuple(values.tolist()), tuple(counts.tolist()), seed, resamples, level)


@lru_cache(maxsize=4096)
def resampled_mean(
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


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"level {level} is no coverage; give a number between 0 and 1, such as 0.95")
