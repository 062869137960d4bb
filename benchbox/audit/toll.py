"""Which samples the probes broke, for the worst case that a row is ranked by (`benchbox.analysis.probed`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchbox.analysis.worst_case import Halves, worst_by
from benchbox.audit.evidence import Panel, union


def of(panel: Panel) -> dict[str, Any]:
    """What the record of an audit keeps of its panel.

    Returns:
        `broken`: positions of the samples that fell, of a randomised defence in at least half of the draws. Of a
        randomised one also `draws`: by position, whether each draw was right ("1") under the run that is worst by
        the even draws and under the one that is worst by the odd ones; samples that no draw lost are left out.
    """
    fallen = union(panel.runs, len(panel.indices)) & panel.correct
    record: dict[str, Any] = {"broken": [int(index) for index in panel.indices[fallen]]}
    drawn = [run.right for run in panel.runs if run.right is not None]
    if drawn:
        halves = Halves.of(drawn)
        by = [np.stack(drawn)[worst_by(half), np.arange(len(panel.indices))] for half in (halves.even, halves.odd)]
        lost = np.flatnonzero(~np.logical_and(*by).all(axis=1))
        record["draws"] = {str(panel.indices[i]): [_written(rows[i]) for rows in by] for i in lost}
    return record


def with_earlier(
    found: dict[str, Any], before: Mapping[str, Any] | None, now: Mapping[str, Any]
) -> dict[str, Any]:
    """With what an earlier audit of the same weights broke inside the same ball: what fell once has fallen.

    Args:
        found: From `of`.
        before: The earlier record.
        now: The new one, for its ball and its images.
    """
    if before is None or _about(before) != _about(now):
        return found
    kept = dict(found)
    kept["broken"] = sorted({*before.get("broken", ()), *found["broken"]})
    if "draws" in found:
        kept["draws"] = {**before.get("draws", {}), **found["draws"]}
    return kept


def _about(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["threat"], record["samples"]["dataset"], record["samples"]["split"]


def _written(right: np.ndarray) -> str:
    return "".join("1" if draw else "0" for draw in right)
