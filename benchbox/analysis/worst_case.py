"""What many attacks say together: the per-sample worst case, over arrays and over stored cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchbox.analysis.probed import Probed
from benchbox.domain import NULL_ATTACK, Evidence
from benchbox.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Breaks ties between attacks without overturning a difference of a single draw.
_TIE = 1e-9


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
    return Halves.of(correct).worst()


@dataclass(frozen=True)
class Halves:
    """Correctness under several attacks, ready for the worst case over them.

    Attributes:
        even: (attacks, N) share of the even draws in which each sample is right; truth values for one draw.
        odd: Likewise of the odd draws; the same array where every attack has one draw.
    """

    even: NDArray[Any]
    odd: NDArray[Any]

    @classmethod
    def of(cls, correct: Sequence[NDArray[np.bool_]]) -> Halves:
        """The halves of (N, R) arrays, one for each attack.

        Raises:
            DataError: There is no attack, or the attacks were scored on different numbers of samples.
        """
        if not correct or any(c.ndim != 2 or c.shape[1] == 0 or len(c) != len(correct[0]) for c in correct):
            shapes = [c.shape for c in correct]
            raise DataError(f"a worst case needs one (N, R) array per attack with the same N, got {shapes}")
        if all(c.shape[1] == 1 for c in correct):
            once = np.stack([c[:, 0] for c in correct])
            return cls(once, once)
        even = np.stack([c[:, 0::2].mean(axis=1) for c in correct])
        odd = np.stack([(c[:, 1::2] if c.shape[1] > 1 else c).mean(axis=1) for c in correct])
        return cls(even, odd)

    def worst(self) -> NDArray[np.float64]:
        """(N,) shares as `worst_case` says."""
        if self.even is self.odd:
            return np.asarray(np.logical_and.reduce(self.even, axis=0), np.float64)
        share: NDArray[np.float64] = (_chosen(self.even, self.odd) + _chosen(self.odd, self.even)) / 2
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


def worst_by(select: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) number of the attack that is worst for each sample by one half of the draws (attacks, N)."""
    worst: NDArray[np.int64] = (select + _TIE * select.mean(axis=1, keepdims=True)).argmin(axis=0)
    return worst


def _chosen(select: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the attack that `select` finds worst for a sample gets in `score`; both (attacks, N)."""
    chosen: NDArray[np.float64] = np.take_along_axis(score, worst_by(select)[None], axis=0)[0]
    return chosen


def is_null(evidence: Evidence) -> bool:
    """Whether a cell is the control, which attacks nothing."""
    return evidence.cell.attack.name == NULL_ATTACK


def is_finished(evidence: Evidence) -> bool:
    """Whether every sample of the cell's list is scored."""
    return evidence.status == "done" and len(evidence.outcome) == len(evidence.cell.samples)


def is_beginning(evidence: Evidence) -> bool:
    """Whether the scored samples are the first of the list, and some.

    Others may have been chosen, say because they withstood what came before, and their share would mislead.
    """
    return evidence.outcome.is_beginning


def finished(cells: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Finished cells on the longest sample list among them."""
    done = [cell for cell in cells if is_finished(cell)]
    longest = max((cell.cell.samples for cell in done), key=len, default=None)
    return tuple(cell for cell in done if cell.cell.samples == longest)


def by_draws(evidence: Evidence) -> tuple[int, int, str]:
    """Sort key: most scoring draws first, because the first cell of a defence also speaks for its clean images."""
    return -evidence.cell.scoring_draws, evidence.cell.attack_seed, evidence.cell.key


def clean_correct(evidence: Evidence) -> NDArray[np.bool_]:
    """(N, R) whether the clean image is classified correctly, in the order of the sample list."""
    return evidence.outcome.correct("clean")


def adversarial_correct(evidence: Evidence) -> NDArray[np.bool_]:
    """(N, R) whether the adversarial image is, likewise."""
    return evidence.outcome.correct("adversarial")


def correctness(
    cells: Sequence[Evidence], *, with_clean: bool = False, probed: Probed | None = None
) -> list[NDArray[np.bool_]]:
    """The (N, R) arrays that the worst case of some finished cells is over.

    Args:
        cells: Of one trained defence on one sample list.
        with_clean: Count the clean image as one more attack: it lies in every ball, so no defence is more
            robust than it is accurate.
        probed: Count what an audit broke of these images as one more attack.
    """
    arrays = [adversarial_correct(cell) for cell in cells]
    if cells and probed is not None:
        arrays += probed.right
    return [*arrays, clean_correct(cells[0])] if with_clean and cells else arrays


def surviving(cells: Sequence[Evidence], probed: Probed | None = None) -> NDArray[np.float64]:
    """(N,) share of draws in which each sample survives the clean image and the worst of some finished cells.

    Args:
        cells: Of one trained defence on one sample list; at least one.
        probed: What an audit broke of these images.
    """
    return worst_case(correctness(cells, with_clean=True, probed=probed))


def fallen(cells: Sequence[Evidence], probed: Probed | None) -> int:
    """How many images that mostly withstood some finished cells mostly do not when an audit's probes count too."""
    if probed is None:
        return 0
    return int(((surviving(cells) > 0.5) & (surviving(cells, probed) <= 0.5)).sum())
