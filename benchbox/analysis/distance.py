"""How far the nearest error is, as attacks found it that search for the nearest one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchbox.domain import Evidence

#: What such an attack declares.
FAMILY = "minimum norm"


def median(finished: Sequence[Evidence]) -> float | None:
    """The median distance to the nearest error, over images that are classified correctly, as the ball measures.

    An attack that stops at the first error inside the ball searches for no nearest one and is left out.

    Args:
        finished: The finished cells of a row, on one sample list.

    Returns:
        Infinity where half of the images have no error inside the ball; None where nobody has searched, or where
        distances are not known image by image.
    """
    searched = [item for item in finished if _searches(item) and item.outcome.measured]
    if not searched:
        return None
    order = [np.argsort(item.outcome.position) for item in searched]
    correct = searched[0].outcome.clean_correct[order[0]] > 0.5
    if not correct.any():
        return None
    nearest = np.min([_distances(item)[rows] for item, rows in zip(searched, order, strict=True)], axis=0)
    # Between a number and infinity there is no middle.
    return float(np.quantile(nearest[correct], 0.5, method="inverted_cdf"))


def _searches(item: Evidence) -> bool:
    nature = item.cell.nature
    return nature is not None and nature.kind == "iterative" and FAMILY in nature.families


def _distances(item: Evidence) -> np.ndarray:
    return np.where(item.outcome.robust <= 0.5, item.outcome.lengths(item.cell.threat), np.inf)
