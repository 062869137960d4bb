"""How sure a number is, and what many attacks say together. NumPy and SciPy only, no torch.

Everything here is a share in [0, 1]; reports turn shares into percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchbox.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Coverage of every interval in the reports.
LEVEL = 0.95
#: An interval that is wider than this to either side gives no place of its own, only a group (check D1).
PLACE = 0.01
#: Breaks ties between attacks without overturning a difference of a single draw.
_TIE = 1e-9


class Interval(NamedTuple):
    """A confidence interval for a share."""

    low: float
    high: float


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
    # R draws leave few distinct means, so drawing how often each occurs is exact and needs no N × resamples.
    drawn = np.random.default_rng(seed).multinomial(len(means), counts / len(means), size=resamples)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn @ values / len(means), [tail, 1 - tail])
    return Interval(float(low), float(high))


def worst_case(correct: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Expected robustness of each sample against the attack that is worst for it.

    For a deterministic defence (R = 1) this is the minimum over the attacks. For a randomised one the minimum
    of the attacks' means would be too low: it picks, for every sample, the attack with the unluckiest draws.
    So the attack is chosen on the even draws and scored on the odd ones, then the other way round, and the
    two are averaged. Ties go to the attack that is stronger over all samples. An array with R = 1 among
    others with R > 1 has no second draw: it is chosen and scored by the same one, which biases the result
    downwards.

    Args:
        correct: For each attack an (N, R) array, row i the same sample in all of them; R may differ.

    Returns:
        (N,) shares in [0, 1]; 0 or 1 when every R is 1.

    Raises:
        DataError: There is no attack, or the attacks were scored on different numbers of samples.
    """
    if not correct or any(c.ndim != 2 or c.shape[1] == 0 or len(c) != len(correct[0]) for c in correct):
        shapes = [c.shape for c in correct]
        raise DataError(f"a worst case needs one (N, R) array per attack with the same N, got {shapes}")
    even = np.stack([c[:, 0::2].mean(axis=1) for c in correct])
    odd = np.stack([(c[:, 1::2] if c.shape[1] > 1 else c).mean(axis=1) for c in correct])
    share: NDArray[np.float64] = (_chosen(even, odd) + _chosen(odd, even)) / 2
    return share


def majority_vote(predictions: NDArray[np.int64], label: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the class predicted most often is the true one; of equally frequent ones the first drawn wins.

    Args:
        predictions: (N, R) predicted classes.
        label: (N,) true classes.

    Returns:
        (N,) truth values.
    """
    votes = (predictions[:, :, None] == predictions[:, None, :]).sum(axis=2)
    winner = np.take_along_axis(predictions, votes.argmax(axis=1)[:, None], axis=1)[:, 0]
    won: NDArray[np.bool_] = np.equal(winner, label)
    return won


def worst_of_r(correct: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether every draw of an (N, R) array is correct. Tends to 0 as R grows; never a headline."""
    every: NDArray[np.bool_] = np.logical_and.reduce(correct, axis=1)
    return every


def fixed_seed(correct: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether the first draw of an (N, R) array is correct: what a single seed, held fixed, reports."""
    first: NDArray[np.bool_] = correct[:, 0]
    return first


def _chosen(select: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the attack that `select` finds worst for a sample gets in `score`; both (attacks, N)."""
    worst = (select + _TIE * select.mean(axis=1, keepdims=True)).argmin(axis=0)
    chosen: NDArray[np.float64] = np.take_along_axis(score, worst[None], axis=0)[0]
    return chosen


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"level {level} is no coverage; give a number between 0 and 1, such as 0.95")
