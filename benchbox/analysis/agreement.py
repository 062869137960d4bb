"""Whether numbers that were computed again are the numbers that were published, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchbox.analysis.difference import CellDifference, RunDifference, compare_runs
from benchbox.analysis.pairs import ALPHA, holm, mcnemar
from benchbox.domain import Evidence


class Verdict(StrEnum):
    """What came of it; the order is that of how bad it is."""

    SAME = "agrees"  # every prediction is the same
    WITHIN = "agrees within chance"  # some images differ, no more of them to one side than chance allows
    DIFFERS = "does not agree"  # a cell has become better or worse


@dataclass(frozen=True)
class Agreement:
    """Published cells beside those computed again.

    Attributes:
        found: Which images differ, cell by cell.
        p: Per cell, the smallest of the exact McNemar tests on its clean and adversarial images and on what is
            certified of them, adjusted by Holm over all of them.
    """

    found: RunDifference
    p: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the whole."""
        if self.found.only_a or any(p < ALPHA for p in self.p):
            return Verdict.DIFFERS
        return Verdict.WITHIN if any(map(differing, self.found.cells)) else Verdict.SAME


def compare(published: Sequence[Evidence], again: Sequence[Evidence]) -> Agreement:
    """Set cells beside those of the same key; a published cell without one was not reproduced.

    Args:
        published: Cut to the images that were computed again (`cut`).
        again: The same cells.
    """
    found = compare_runs(published, again)
    tests = [mcnemar(len(flags.lost), len(flags.won)) for cell in found.cells for flags in cell.changes.values()]
    adjusted = iter(holm(tests))
    return Agreement(found, tuple(min(next(adjusted) for _ in cell.changes) for cell in found.cells))


def differing(cell: CellDifference) -> int:
    """Images of which a prediction is another, clean or adversarial, or of which something else is proven."""
    every = cell.changes.values()
    return len({index for flags in every for index in (*flags.lost, *flags.won, *flags.otherwise)})
