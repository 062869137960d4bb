"""Two defences trained several times each: then a training is the unit, not an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchbox.analysis.intervals import LEVEL, Interval
from benchbox.analysis.pairs import ALPHA, POWER
from benchbox.errors import DataError

#: Fewer trainings than this say nothing about their spread.
ENOUGH = 3


class Welch(NamedTuple):
    """How the means of two groups of trainings differ.

    Attributes:
        interval: 95 % interval of the difference, first minus second.
        p: Two-sided.
        detectable: The smallest difference these spreads would have shown with 80 % power.
    """

    interval: Interval
    p: float
    detectable: float


def welch(a: Sequence[float], b: Sequence[float]) -> Welch | None:
    """Welch's t-test (Welch 1947) on one accuracy per training seed.

    Seeds of two recipes are not paired: equal numbers start different trainings. None where no training
    differs from another on its side: then there is no spread to compare the difference with.

    Raises:
        DataError: There are fewer than two trainings on a side.
    """
    if min(len(a), len(b)) < 2:
        raise DataError(f"{len(a)} and {len(b)} trainings have no spread; train at least {ENOUGH} seeds of each")
    from scipy.stats import t

    parts = [float(np.var(group, ddof=1)) / len(group) for group in (a, b)]
    difference, error = float(np.mean(a) - np.mean(b)), math.sqrt(sum(parts))
    if error < 1e-12:
        return None
    # Welch–Satterthwaite.
    freedom = sum(parts) ** 2 / sum(p**2 / (len(g) - 1) for p, g in zip(parts, (a, b), strict=True))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = 2 * float(t.sf(abs(difference) / error, freedom))
    reach = (float(t.ppf(1 - ALPHA / 2, freedom)) + float(t.ppf(POWER, freedom))) * error
    return Welch(Interval(difference - half, difference + half), p, reach)
