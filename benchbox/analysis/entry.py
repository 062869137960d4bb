"""From what happened to each sample to one number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchbox.analysis import stats
from benchbox.domain import Access, Evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchbox.analysis.paper import Printed

#: What a table says where nobody has run anything; never a blank.
NOT_RUN = "n/r"
#: Seed of the bootstrap, so that the same results give the same page.
BOOTSTRAP_SEED = 0

Status = Literal["done", "same", "partial", "failed", "not run", "withheld"]
#: What a table says in place of a number whose scoring is known to be wrong.
WITHHELD = "withheld"


@dataclass(frozen=True)
class Score:
    """A share of all samples, in percent.

    Attributes:
        percent: The share.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Samples it is a share of.
        draws: Scoring draws per sample; 1 for a deterministic defence.
    """

    percent: float
    low: float
    high: float
    n: int
    draws: int = 1

    @property
    def digits(self) -> int:
        """Decimals worth printing: one sample in a thousand is a tenth of a percent."""
        return 1 if self.n <= 1000 else 2

    @property
    def interval(self) -> str:
        """As in "[95.1, 97.2]"."""
        return f"[{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]"

    @property
    def method(self) -> str:
        """How the interval was made."""
        return "Clopper-Pearson" if self.draws == 1 else "cluster bootstrap"

    def __str__(self) -> str:
        return f"{self.percent:.{self.digits}f}"


@dataclass(frozen=True)
class Measurement:
    """One cell of the store with its own number, before stand-ins and seeds are united.

    Attributes:
        evidence: The cell and all that is known of how it was run.
        score: None when nothing was scored.
        status: Of the cell.
        extra: For a randomised defence: majority vote, worst of R, and its first draw alone (a fixed seed), in
            percent.
    """

    evidence: Evidence
    score: Score | None
    status: Status
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def stand_in(self) -> str:
        """The stand-in the attack went through; "exact" for plain autograd; "" where there is no choice."""
        cell = self.evidence.cell
        return cell.view.stand_in or ("exact" if cell.access is Access.BPDA else "")

    @property
    def passes(self) -> tuple[float, float] | None:
        """Mean (forward, backward) passes per sample; None when nothing was scored or nobody counted."""
        outcome = self.evidence.outcome
        if len(outcome) == 0 or self.evidence.cell.access is Access.IMPORTED:
            return None
        return float(outcome.forwards.mean()), float(outcome.backwards.mean())

    @property
    def commit(self) -> str:
        """The code's commit, with a + when the tree had changes; "unknown" outside a checkout."""
        provenance = self.evidence.provenance
        return f"{provenance.get('commit') or 'unknown'}{'+' if provenance.get('dirty') else ''}"


@dataclass(frozen=True)
class Entry:
    """What stands where a row meets a column.

    Attributes:
        status: `same` when the number was measured under another access that attacks the same model; `withheld`
            when the scoring of the row is known to be wrong (`control`).
        score: Per-sample worst case over the measurements; None when there is none.
        paper: The paper's number, if it has one.
        measurements: One per stand-in, seed or number of draws.
        notes: Numbers of the table's notes about it, from 1.
    """

    status: Status = "not run"
    score: Score | None = None
    paper: Printed | None = None
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[int, ...] = ()

    @property
    def figure(self) -> str:
        """The number with its mark: "97.6", "= 97.6", "97.6…", "failed", "withheld" or "n/r"."""
        if self.status == "not run":
            return NOT_RUN
        if self.status == "withheld":
            return WITHHELD
        if self.score is None:
            return "failed" if self.status == "failed" else "…"
        return {"same": f"= {self.score}", "partial": f"{self.score}…"}.get(self.status, str(self.score))

    @property
    def passes(self) -> float:
        """Forward and backward passes a sample, over all measurements."""
        return sum(m.evidence.outcome.passes for m in self.measurements)


def measure(evidence: Evidence) -> Measurement:
    """The number of one cell."""
    outcome = evidence.outcome
    status: Status = evidence.status
    if status == "done" and len(outcome) < len(evidence.cell.samples):
        status = "partial"
    if status == "failed" or len(outcome) == 0:
        return Measurement(evidence, None, status)
    extra = {}
    if outcome.adversarial.shape[1] > 1:
        extra = {
            "majority_vote": 100 * float(stats.majority_vote(outcome.adversarial, outcome.label).mean()),
            "worst_of_r": 100 * float(stats.worst_of_r(adversarial_correct(evidence)).mean()),
            "fixed_seed": 100 * float(stats.fixed_seed(adversarial_correct(evidence)).mean()),
        }
    return Measurement(evidence, union([adversarial_correct(evidence)]), status, extra)


def combine(measurements: Sequence[Measurement]) -> Entry:
    """One entry from the cells of one attack under one access: a sample falls if any of them breaks it."""
    if not measurements:
        return Entry()
    if any(m.status == "withheld" for m in measurements):
        return Entry("withheld", measurements=tuple(measurements))
    done = [m for m in measurements if m.status == "done"]
    scored = [m.score for m in measurements if m.score is not None]
    status: Status = "done" if len(done) == len(measurements) else "partial" if scored else "failed"
    if not scored and any(m.status == "partial" for m in measurements):
        status = "partial"
    # Unfinished cells are on other samples than finished ones and can only be shown, not united.
    score = worst([m.evidence for m in done]) or min(scored, key=lambda s: s.percent, default=None)
    return Entry(status, score, measurements=tuple(measurements))


def worst(finished: Sequence[Evidence], *, with_clean: bool = False) -> Score | None:
    """Per-sample worst case over finished cells of one defence on one sample list.

    Args:
        finished: Every sample of the list is scored in each.
        with_clean: Count the clean image as one more attack: it lies in every ball, so no defence is more
            robust than it is accurate.
    """
    arrays = worst_arrays(finished, with_clean=with_clean)
    return union(arrays) if arrays else None


def worst_arrays(finished: Sequence[Evidence], *, with_clean: bool = False) -> list[NDArray[np.bool_]]:
    """What the worst case is over: an (N, R) array of correctness for each cell, and one for clean images."""
    arrays = [adversarial_correct(evidence) for evidence in finished]
    return [*arrays, clean_correct(finished[0])] if with_clean and finished else arrays


def survivors(entries: Sequence[Entry]) -> NDArray[np.float64]:
    """(N,) share of draws in which each sample survives the clean image and the worst of some finished entries."""
    evidence = [one.evidence for entry in entries for one in entry.measurements]
    return stats.worst_case(worst_arrays(evidence, with_clean=True))


def union(arrays: Sequence[NDArray[np.bool_]]) -> Score:
    """The score of (N, R) arrays of correctness whose rows are the same samples."""
    return score(stats.worst_case(arrays), max(array.shape[1] for array in arrays))


def score(means: NDArray[np.float64], draws: int) -> Score:
    """A score from (N,) per-sample shares: Clopper-Pearson for one draw, else the bootstrap."""
    n = len(means)
    if draws == 1:
        interval = stats.clopper_pearson(round(float(means.sum())), n)
    else:
        interval = stats.cluster_bootstrap(means, BOOTSTRAP_SEED)
    return Score(100 * float(means.mean()), 100 * interval.low, 100 * interval.high, n, draws)


def clean_correct(evidence: Evidence) -> NDArray[np.bool_]:
    """(N, R) whether the clean image is classified correctly, in the order of the sample list."""
    outcome = evidence.outcome
    right: NDArray[np.bool_] = (outcome.clean == outcome.label[:, None])[np.argsort(outcome.position)]
    return right


def adversarial_correct(evidence: Evidence) -> NDArray[np.bool_]:
    """(N, R) whether the adversarial image is, likewise."""
    outcome = evidence.outcome
    right: NDArray[np.bool_] = (outcome.adversarial == outcome.label[:, None])[np.argsort(outcome.position)]
    return right


def describe(score: Score | None) -> dict[str, Any] | None:
    """JSON form of a score."""
    if score is None:
        return None
    return {
        "percent": score.percent,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "draws": score.draws,
        "interval": score.method,
    }
