"""One measurement of a randomised defence under each convention of scoring, side by side.

Papers say "accuracy" and mean one of these. They are taken of the same images in the same draws, so what sets them
apart is the convention alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis.score import Score
from benchbox.analysis.worst_case import adversarial_correct, fixed_seed, is_finished, majority_vote, worst_of_r
from benchbox.domain import Evidence

#: (N, R) predicted classes and (N,) true ones -> (N,) how much of each image is counted as right.
Counted = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Convention:
    """A way to make one number of several draws.

    Attributes:
        key: Its name for machines.
        title: Its name in a table; {} stands for the number of draws.
        said: Who counts so, and what it answers.
        counted: What it counts of each image.
    """

    key: str
    title: str
    said: str
    counted: Counted


def _right(predictions: NDArray[np.int64], label: NDArray[np.int64]) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = predictions == label[:, None]
    return right


CONVENTIONS = (
    Convention(
        "one_draw",
        "one draw",
        "one answer for each image, as DiffPure and most purifiers are evaluated",
        lambda predictions, label: fixed_seed(_right(predictions, label)).astype(np.float64),
    ),
    Convention(
        "expected",
        "expected",
        "the mean over draws, which one draw estimates; benchbox ranks by it",
        lambda predictions, label: _right(predictions, label).mean(axis=1),
    ),
    Convention(
        "majority_vote",
        "vote of {}",
        "the class most draws say: another defence, which DiffBreak proposes in the place of one purification",
        lambda predictions, label: majority_vote(predictions, label).astype(np.float64),
    ),
    Convention(
        "worst_of_r",
        "worst of {}",
        "right in every draw: an attacker who may submit one image that often, DiffBreak's objection",
        lambda predictions, label: worst_of_r(_right(predictions, label)).astype(np.float64),
    ),
)


@dataclass(frozen=True)
class Line:
    """One cell under every convention.

    Attributes:
        evidence: The cell.
        scores: By the key of a convention.
    """

    evidence: Evidence
    scores: dict[str, Score]

    @property
    def draws(self) -> int:
        """Scoring draws."""
        return int(self.evidence.outcome.adversarial.shape[1])

    @property
    def spread(self) -> float:
        """Points between the highest of the conventions and the lowest."""
        found = [score.percent for score in self.scores.values()]
        return max(found) - min(found)


def lines(evidence: Iterable[Evidence]) -> list[Line]:
    """One for each finished cell that was scored in several draws."""
    return [
        Line(item, scores(item.outcome.adversarial, item.outcome.label))
        for item in evidence
        if is_finished(item) and adversarial_correct(item).shape[1] > 1
    ]


def scores(predictions: NDArray[np.int64], label: NDArray[np.int64]) -> dict[str, Score]:
    """The score under each convention, by its key.

    Args:
        predictions: (N, R) predicted classes.
        label: (N,) true classes.
    """
    draws = predictions.shape[1]
    return {
        one.key: Score(one.counted(predictions, label), draws if one.key == "expected" else 1)
        for one in CONVENTIONS
    }


def largest(found: Sequence[Line]) -> Line | None:
    """The line whose conventions differ most."""
    return max(found, key=lambda line: line.spread, default=None)
