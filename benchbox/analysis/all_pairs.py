"""Every defence of a table against every other at once: p-values by matrix products, and the ranks they earn.

Everything here is a share in [0, 1]. NumPy and SciPy only, no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchbox.analysis.pairs import ALPHA, holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: P(S ≥ x) ≤ RADEMACHER · P(Z ≥ x), for sums S of ±a with Σa² = 1 and Z normal: the smallest constant there is
#: (Bentkus & Dzindzalieta, A tight Gaussian bound for weighted sums of Rademacher random variables,
#: Bernoulli 2015).
RADEMACHER = 3.178


def ranks(means: NDArray[np.float64], p: NDArray[np.float64], alpha: float = ALPHA) -> list[int]:
    """Ranks from 1: one more than the number of defences that are significantly better.

    Differences are tested with Holm's correction over all pairs, so that with probability 1 - `alpha` no rank
    counts a defence as better that is not (the lower ends of the simultaneous confidence sets for ranks of
    Mogstad, Romano, Shaikh & Wilhelm, Review of Economic Studies 2024). What is printed as less accurate never
    ranks above what is printed as more accurate, and equal accuracies have equal ranks.

    Args:
        means: (m,) accuracy of each defence.
        p: (m, m) of no difference, symmetric.
        alpha: How often a table of equally good defences may show more than one rank.
    """
    upper = np.triu_indices(len(means), 1)
    different = np.zeros(p.shape, bool)
    different[upper] = np.array(holm(p[upper])) < alpha
    different |= different.T
    means = means.round(12)  # sums of tenths are not exact, and equals have to stay equal
    better = (different & (means[:, None] > means)).sum(axis=0)
    lowest = np.where(means <= means[:, None], better, len(means)).min(axis=1, initial=len(means))
    return [1 + int(rank) for rank in lowest]


def p_values(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, m) two-sided p-values of no difference, for every pair on the same images.

    Exact McNemar between two defences that are simply right or wrong on each image. Where one is right in a share
    of the draws, a bound on the sign-flip test: never below its p-value, and at most RADEMACHER times it where the
    sum is about normal.

    Args:
        shares: (m, N).
    """
    from scipy.special import bdtr, ndtr  # scipy.stats would cost every report another second

    if len(shares) == 0:
        return np.empty((0, 0))
    binary = ((shares == 0) | (shares == 1)).all(axis=1)
    if binary.all():
        shares = shares.astype(np.float32)  # counts below 2²⁴ are exact, in half the time
    total = shares.sum(axis=1, dtype=np.float64)
    both = (shares @ shares.T).astype(np.float64)
    only = np.maximum((total[:, None] - both).round(), 0)  # right where the other is wrong
    exact = np.minimum(1.0, 2 * bdtr(np.minimum(only, only.T), (only + only.T).astype(np.int64), 0.5))
    if binary.all():
        return np.asarray(exact, np.float64)
    squares = np.diag(both)
    spread = np.sqrt(np.maximum(squares[:, None] + squares - 2 * both, 1e-9))
    bound = np.minimum(1.0, 2 * RADEMACHER * ndtr(-np.abs(total[:, None] - total) / spread))
    return np.asarray(np.where(binary[:, None] & binary, exact, bound), np.float64)
