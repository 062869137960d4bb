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


def mean_of_shares(means: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Clopper-Pearson's interval, carried over from right and wrong to shares of draws; exact for right and wrong.

    Samples are the clusters: a randomised defence is scored R times on the same image, and R draws of one image
    are no R images. Each end is a quantile of the mean under random (Dirichlet) weights of the observed values
    and of one more that nobody has seen: 1 for the upper end, 0 for the lower (Gaffke, Three test statistics for a
    nonparametric one-sided hypothesis on the mean of a nonnegative variable, 2005; Learned-Miller & Thomas, A new
    confidence interval for the mean of a bounded random variable, arXiv 1905.06208). For zeros and ones these
    weights are a Beta variable, and its quantiles Clopper-Pearson's ends; for other values the Beta variable of
    the same mean and variance stands for them. So the interval is that of the central limit where images abound,
    and allows for an image of another kind where none was seen.

    Args:
        means: (N,) share of correct draws of each sample, in [0, 1].
        level: Coverage, in (0, 1).

    Raises:
        DataError: There are no samples, or a mean is no share.
    """
    if len(means) == 0 or not bool(((means >= 0) & (means <= 1)).all()):
        raise DataError("an interval needs at least one sample, and shares in [0, 1]; drop what was not scored")
    _check_level(level)
    tail = (1 - level) / 2
    return Interval(1 - _upper_end(1 - means, tail), _upper_end(means, tail))


def _upper_end(means: NDArray[np.float64], tail: float) -> float:
    """The 1 - `tail` quantile of the mean, with a value of 1 that nobody has seen."""
    from scipy.special import betaincinv

    lowest = float(means.min())
    if lowest == 1:
        return 1.0
    values = np.append((means - lowest) / (1 - lowest), 1.0)
    mean, variance = float(values.mean()), float(values.var())
    total = mean * (1 - mean) / variance * (len(values) + 1) - 1
    quantile = float(betaincinv(mean * total, (1 - mean) * total, 1 - tail))
    return lowest + (1 - lowest) * quantile


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"level {level} is no coverage; give a number between 0 and 1, such as 0.95")
