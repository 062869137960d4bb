"""A confidence interval that may be looked at after every image, and stopped at when it says enough.

An interval of a fixed number of images loses its promise when the number is chosen by looking. A confidence
sequence holds at all numbers at once: whoever stops when the answer is sure is wrong as seldom as promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from benchbox.analysis.intervals import Interval
from benchbox.errors import DataError


def confidence_sequence(successes: float, n: int, level: float = 0.95) -> Interval:
    """Robbins' mixture for a share: with probability `level` the share lies in it at every n at once.

    The likelihood ratio of a beta-binomial against Bernoulli(p), with the mixture Beta(1/2, 1/2), is a martingale
    with mean 1 when p is the share, so it ever reaches 1 / (1 - level) with probability at most 1 - level (Ville
    1939; Robbins, Annals of Mathematical Statistics 41, 1970; Howard et al., Annals of Statistics 49, 2021,
    section on conjugate mixtures). The interval is every p for which it has not.

    Args:
        successes: Of the n trials, which are independent draws of one distribution.
        n: Trials; none leave everything open.
        level: Coverage, in (0, 1).

    Raises:
        DataError: The counts or the level do not fit.
    """
    if not 0 <= successes <= n:
        raise DataError(f"{successes} of {n} is no share; give 0 <= successes <= n")
    if not 0 < level < 1:
        raise DataError(f"level {level} is no coverage; give a number between 0 and 1, such as 0.95")
    failures = n - successes
    mixture = _log_beta(successes + 0.5, failures + 0.5) - _log_beta(0.5, 0.5)

    def is_outside(p: float) -> bool:
        return mixture - _times_log(successes, p) - _times_log(failures, 1 - p) >= -math.log(1 - level)

    share = successes / n if n else 0.5
    return Interval(_border(0.0, share, is_outside), _border(1.0, share, is_outside))


def _border(outer: float, inner: float, is_outside: Callable[[float], bool]) -> float:
    """Where the interval ends between its middle and an end of [0, 1], by bisection: the ratio is convex in p."""
    if not is_outside(outer):
        return outer
    for _ in range(60):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if is_outside(middle) else (outer, middle)
    return outer


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _times_log(count: float, p: float) -> float:
    """count · log p, with 0 · log 0 = 0."""
    if count == 0:
        return 0.0
    return count * math.log(p) if p > 0 else -math.inf
