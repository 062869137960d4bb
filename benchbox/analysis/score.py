"""From what happened to each sample to one number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchbox.analysis.intervals import Interval, clopper_pearson, mean_of_shares
from benchbox.analysis.worst_case import (
    adversarial_correct,
    correctness,
    fixed_seed,
    is_beginning,
    majority_vote,
    worst_case,
    worst_of_r,
)
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


class Score:
    """A share of all samples, in percent, with its 95 % interval, which is computed when it is asked for.

    Attributes:
        n: Samples.
        draws: Scoring draws per sample; 1 for a deterministic defence.
        percent: The share.
    """

    def __init__(self, shares: NDArray[np.float64], draws: int = 1) -> None:
        """(N,) share of the draws in which each sample is classified correctly; 0 or 1 where there is one draw."""
        self.n, self.draws = len(shares), draws
        self.percent = 100 * float(shares.mean())
        # Bits where they suffice: a table keeps thousands of these.
        self._bits = np.packbits(shares == 1) if draws == 1 else None
        self._shares = shares if draws > 1 else None

    @property
    def shares(self) -> NDArray[np.float64]:
        """(N,) as they were given."""
        if self._bits is not None:
            return np.unpackbits(self._bits, count=self.n).astype(np.float64)
        assert self._shares is not None
        return self._shares

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return 100 * self._interval.low

    @property
    def high(self) -> float:
        """Upper end."""
        return 100 * self._interval.high

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
        return "Clopper-Pearson" if self.draws == 1 else "Clopper-Pearson for shares"

    def __str__(self) -> str:
        return f"{self.percent:.{self.digits}f}"

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        numbers = {"percent": self.percent, "low": self.low, "high": self.high, "n": self.n, "draws": self.draws}
        return {**numbers, "interval": self.method}

    @cached_property
    def _interval(self) -> Interval:
        if self.draws == 1:
            return clopper_pearson(round(self.percent * self.n / 100), self.n)
        return mean_of_shares(self.shares)


@dataclass(frozen=True)
class Measurement:
    """One cell of the store with its own number, before stand-ins and seeds are united.

    Attributes:
        evidence: The cell and all that is known of how it was run.
        score: None when nothing was scored.
        status: Of the cell.
    """

    evidence: Evidence
    score: Score | None
    status: Status

    @property
    def extra(self) -> dict[str, float]:
        """For a randomised defence: majority vote, worst of R, its first draw alone (a fixed seed); in percent."""
        outcome = self.evidence.outcome
        if self.score is None or self.evidence.cell.scoring_draws == 1:
            return {}
        right = adversarial_correct(self.evidence)
        return {
            "majority_vote": 100 * float(majority_vote(outcome.adversarial, outcome.label).mean()),
            "worst_of_r": 100 * float(worst_of_r(right).mean()),
            "fixed_seed": 100 * float(fixed_seed(right).mean()),
        }

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
        return outcome.mean_passes

    @cached_property
    def by_class(self) -> dict[str, dict[str, Any]]:
        """By true class: its images, and the percentages of them that are right as they are and attacked."""
        if self.score is None:
            return {}
        outcome = self.evidence.outcome
        clean, robust = (shares_by_class(outcome.label, s) for s in (outcome.clean_correct, outcome.robust))
        return {c: {"n": n, "clean": clean[c][1], "percent": percent} for c, (n, percent) in robust.items()}

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
        where: Access and attack they were made under.
    """

    status: Status = "not run"
    score: Score | None = None
    paper: Printed | None = None
    measurements: tuple[Measurement, ...] = ()
    where: str = ""

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
        return sum(sum(m.evidence.outcome.mean_passes) for m in self.measurements)


def shares_by_class(label: NDArray[np.int64], shares: NDArray[np.float64]) -> dict[str, tuple[int, float]]:
    """Of each class that occurs: how many images, and their mean share in percent.

    Args:
        label: (N,) true classes.
        shares: (N,) in [0, 1].
    """
    classes = sorted(set(label.tolist()))
    return {str(c): (int((label == c).sum()), 100 * float(shares[label == c].mean())) for c in classes}


def measure(evidence: Evidence) -> Measurement:
    """The number of one cell."""
    outcome = evidence.outcome
    status: Status = evidence.status
    if status == "done" and len(outcome) < len(evidence.cell.samples):
        status = "partial"
    if status == "failed" or not is_beginning(evidence):
        return Measurement(evidence, None, status)
    return Measurement(evidence, union([adversarial_correct(evidence)]), status)


def combine(measurements: Sequence[Measurement], where: str = "") -> Entry:
    """One entry from the cells of one attack under one access: a sample falls if any of them breaks it."""
    if not measurements:
        return Entry()
    if any(m.status == "withheld" for m in measurements):
        return Entry("withheld", measurements=tuple(measurements), where=where)
    done = [m for m in measurements if m.status == "done"]
    scored = [m.score for m in measurements if m.score is not None]
    status: Status = "done" if len(done) == len(measurements) else "partial" if scored else "failed"
    if not scored and any(m.status == "partial" for m in measurements):
        status = "partial"
    # Unfinished cells are on other samples than finished ones and can only be shown, not united.
    # One cell is its own union.
    score = done[0].score if len(done) == 1 else united([m.evidence for m in done])
    score = score or min(scored, key=lambda s: s.percent, default=None)
    return Entry(status, score, measurements=tuple(measurements), where=where)


def union(arrays: Sequence[NDArray[np.bool_]]) -> Score:
    """The score of (N, R) arrays of correctness whose rows are the same samples."""
    return Score(worst_case(arrays), max(array.shape[1] for array in arrays))


def united(cells: Sequence[Evidence], *, with_clean: bool = False) -> Score | None:
    """Per-sample worst case over finished cells of one defence on one sample list; None for no cell.

    Args:
        cells: Every sample of the list is scored in each.
        with_clean: Count the clean image as one more attack, as `correctness` does.
    """
    return union(correctness(cells, with_clean=with_clean)) if cells else None
