"""The cheap attacks of a request in their order, and what is known of the images that meet them.

They are told apart by what they declare to be, never by name: gradients on the defence itself, through each of its
stand-ins, on the bare classifier and on a substitute, then queries of scores, then random points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis.access import KNOWLEDGE
from benchbox.analysis.worst_case import majority_vote
from benchbox.domain import NULL_ATTACK, Access, Cell, Outcome, ViewSpec
from benchbox.engine.passes import crafting
from benchbox.engine.plan import Plan

#: Kinds of attacks that are tried, and in what order.
KINDS = ("iterative", "score-based", "decision-based", "random")


def rungs(plan: Plan, *, every: bool = False) -> tuple[Cell, ...]:
    """The cells of a plan that a quick answer tries, in that order.

    Of the gradient attacks those that are aimed at the whole defence, under each of their accesses; no one-step
    attacks, which these contain, and no ensembles, which take longer than everything else together.

    Args:
        plan: Of one defence.
        every: All of them, because they were asked for by name.
    """
    cells = [cell for cell in plan.cells if cell.attack.name != NULL_ATTACK]
    if not every:
        direct = {cell.attack.name for cell in cells if cell.access is Access.WHITE_BOX}
        cells = [cell for cell in cells if _kind(cell) in KINDS and cell.attack.name in direct]
    return tuple(sorted(cells, key=_turn))


def bare(cells: Sequence[Cell], plan: Plan) -> tuple[Cell, ...]:
    """The same attacks on the bare classifier of a defence; none where the defence has no other below it."""
    found = {}
    for cell in cells:
        wanted = plan.trainings[cell.artifact]
        root = wanted.root
        if wanted.base is not None and cell.access is Access.WHITE_BOX:
            own = replace(
                cell,
                defense=root.defense,
                artifact=root.digest,
                view=ViewSpec(root.digest),
                training_seed=root.seed,
                scoring_draws=1,
                eot=1,
                averaging="",
            )
            found[own.key] = own
    return tuple(found.values())


def passes(cell: Cell) -> float:
    """Forward and backward passes an image, as far as the attack says beforehand."""
    return crafting(cell) or 1.0


@dataclass
class Ladder:
    """Attacks on one defence, and the fate of each image of their list so far.

    An image of a randomised defence has fallen when most of its scoring draws are wrong.

    Attributes:
        cells: The attacks.
        fallen: (N,) whether any of them broke the image, or it was wrong before.
        by: (N,) which of them did first, -1 for none of them.
        tried: (attacks, N) whether it was tried on the image.
    """

    cells: tuple[Cell, ...]
    fallen: NDArray[np.bool_]
    by: NDArray[np.int64]
    tried: NDArray[np.bool_]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Ladder:
        """Nothing is known yet."""
        n = len(cells[0].samples) if cells else 0
        return cls(
            tuple(cells), np.zeros(n, np.bool_), np.full(n, -1, np.int64), np.zeros((len(cells), n), np.bool_)
        )

    def learn(self, rung: int, outcome: Outcome) -> None:
        """Take what happened to some images under one of the attacks."""
        at = outcome.position
        wrong_before = ~majority_vote(outcome.clean, outcome.label)
        broken = ~majority_vote(outcome.adversarial, outcome.label) & ~wrong_before
        self.tried[rung, at] = True
        self.by[at] = np.where(broken & ~self.fallen[at], rung, self.by[at])
        self.fallen[at] |= wrong_before | broken

    def open(self, rung: int, n: int) -> NDArray[np.int64]:
        """Positions among the first n that stand and have not met an attack."""
        return np.flatnonzero(~self.fallen[:n] & ~self.tried[rung, :n])

    def standing(self, n: int) -> NDArray[np.bool_]:
        """(n,) whether an image may still stand: it has not fallen yet."""
        return ~self.fallen[:n]

    def proven(self, n: int) -> NDArray[np.bool_]:
        """(n,) whether it stands, and has met every attack."""
        return ~self.fallen[:n] & self.tried[:, :n].all(axis=0)

    def drop(self, rung: int) -> None:
        """Go on without an attack, which failed."""
        self.tried[rung] = True

    def breakers(self, n: int) -> list[tuple[Cell, int]]:
        """The attacks that broke some of the first n images, with how many, the most first."""
        counts = Counter(int(rung) for rung in self.by[:n] if rung >= 0)
        return [(self.cells[rung], count) for rung, count in counts.most_common()]


def _kind(cell: Cell) -> str:
    return cell.nature.kind if cell.nature else "iterative"


def _turn(cell: Cell) -> tuple[int, float, str, int, str]:
    """By kind, then the cheaper attack; each on the defence itself first."""
    kind = _kind(cell)
    place = KINDS.index(kind) if kind in KINDS else len(KINDS)
    access = KNOWLEDGE.index(cell.access)
    return place, passes(replace(cell, eot=1)), cell.attack.name, access, cell.view.stand_in or ""
