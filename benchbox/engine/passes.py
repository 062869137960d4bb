"""How many passes of a network a cell takes, about, by what its attack declares; and how many are too many."""

from __future__ import annotations

from collections.abc import Iterable

from benchbox.domain import Cell
from benchbox.errors import RequestError
from benchbox.training.artifacts import Training

#: Passes over an image that a cell or a training may take: a year, where a small network on the fastest card makes
#: ten million a second.
MOST = 3e14
#: A field of recipes: the steps of the attack that each step of the training makes.
ATTACK_STEPS = "attack_steps"


def passes(cell: Cell) -> float:
    """Forward and backward passes an image, about: to craft it, and to score it."""
    return crafting(cell) + 2.0 * cell.scoring_draws if cell.nature else 1.0


def crafting(cell: Cell) -> float:
    """Passes to craft an image, by what the attack declares of itself; the same for all that share the image."""
    nature = cell.nature
    if nature is None:
        return 1.0
    steps = 2.0 * nature.steps * max(1, nature.restarts) * max(1, nature.targets)
    return (steps + nature.queries) * cell.eot


def refuse_endless(cells: Iterable[Cell], trainings: Iterable[Training], images: int) -> None:
    """Refuse what cannot end: each number may be in its range, and all of them together out of the world.

    Args:
        cells: What is to be run.
        trainings: What may have to be trained.
        images: How many a training sees in an epoch.

    Raises:
        RequestError: One takes more than `MOST` passes.
    """
    for cell in cells:
        _refuse(f"{cell.attack.name} on {cell.defense.name}", passes(cell) * len(cell.samples), "steps or draws")
    for training in trainings:
        epochs, steps = (_number(training.defense.arguments.get(name)) for name in ("epochs", ATTACK_STEPS))
        _refuse(f"the training of {training.defense.name}", epochs * images * (2 + 2 * steps), "epochs or steps")


def _refuse(what: str, needed: float, remedy: str) -> None:
    if needed > MOST:
        raise RequestError(
            f"{what} would take {needed:.0e} passes of a network, which no machine finishes; take fewer {remedy}"
        )


def _number(value: object) -> float:
    """A field of a recipe, where it is what its name says."""
    return float(value) if isinstance(value, int | float) else 0.0
