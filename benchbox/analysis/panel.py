"""What a rank needs: the attacks without which a number says more of its attacker than of the defence.

A minimum panel after Carlini et al. 2019 and Tramèr et al. 2020. What is missing is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchbox.analysis.worst_case import is_null
from benchbox.domain import Access, Cell, Evidence

#: Steps of 1/30 sum up to 1 but for rounding.
_ROUNDING = 1e-9


def lacking(
    cells: Sequence[Evidence], *, purifies: bool, randomized: bool, noted: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """What of the minimum panel no finished cell is, in words; empty where a rank may be given.

    The panel: an iterated gradient attack whose steps can cross the ball, on the defence as deployed by plain
    autograd where there is any and through every stand-in, averaged over draws where it is randomised; an attack
    that is told scores, one that is told labels; and one from a substitute where one can be trained.

    Args:
        cells: The finished cells of one trained defence.
        purifies: Whether its accesses are different models.
        randomized: Whether it is.
        noted: What was noted of the defence when it was run: `stand_ins`, `exact` (the stand-in that is plain
            autograd) and `substitute`. What was not noted is not asked for, beyond what plain autograd can do.
    """
    return tuple(_lacking([item.cell for item in cells if not is_null(item)], purifies, randomized, noted or {}))


def _lacking(cells: Sequence[Cell], purifies: bool, randomized: bool, noted: Mapping[str, Any]) -> Iterator[str]:
    whole = [cell for cell in cells if cell.view.artifact == cell.artifact and cell.access is not Access.IMPORTED]
    crossing = [cell for cell in whole if crosses(cell)]
    averaged = [cell for cell in crossing if cell.eot > 1 or not randomized]
    exact, stand_ins = noted.get("exact"), tuple(noted.get("stand_ins", ())) if purifies else ()
    if not crossing:
        yield "an iterated gradient attack whose steps cross the ball"
    elif not averaged:
        yield "gradients averaged over draws (EOT)"
    else:
        through = {cell.view.stand_in for cell in averaged}
        if None not in through and (exact or not stand_ins):
            yield "plain autograd"
        yield from (f"stand-in {name}" for name in stand_ins if name != exact and name not in through)
    kinds = {kind for cell in whole if cell.nature for kind in (cell.nature.kind, *cell.nature.families)}
    if "score-based" not in kinds:
        yield "a score-based attack"
    if "decision-based" not in kinds:
        yield "a hard-label attack"
    if noted.get("substitute") and not any(cell.access is Access.TRANSFER for cell in cells):
        yield "a transfer attack"
    if unknown := sorted({cell.attack.name for cell in whole if cell.nature is None}):
        yield f"(what {', '.join(unknown)} is was not recorded)"


def crosses(cell: Cell) -> bool:
    """Whether an attack iterates gradient steps that together are as long as the radius of the ball.

    The length of a step is what the attack declares, or its setting `step`, a share of epsilon, in cells stored
    before it was declared.
    """
    nature = cell.nature
    if nature is None or nature.kind not in ("iterative", "ensemble"):
        return False
    step = cell.attack.arguments.get("step", 0.0) if nature.step is None else nature.step
    return isinstance(step, int | float) and nature.steps * step >= 1 - _ROUNDING
