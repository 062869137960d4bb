"""What attacks leave of the second trainings of AToP, CARSO and PGD-AT: docs/evidence/draws.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import benchbox

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Second:
    """What an attack on the whole of a second training came to, and what it took."""

    percent: float
    gradients: float
    images: int


def second(defense: str, attack: str, draws: int | None = None) -> Second:
    """Of a row on MNIST; without `draws` AutoAttack averages a gradient over 20, and PGD over none."""
    eot = draws or (20 if attack == "aa" else 1)
    found = benchbox.load(ROOT / "docs/evidence/draws.json", defense=defense, seeds=[1]).evidence
    (one,) = (
        item
        for item in found
        if (item.cell.attack.name, item.cell.eot) == (attack, eot)
        and item.cell.view.artifact == item.cell.artifact
        and item.cell.view.stand_in is None
    )
    assert one.cell.attack.arguments.get("sure") == (100 if (attack, eot) == ("aa", 20) else None)
    outcome = one.outcome
    return Second(100 * float(outcome.robust.mean()), float(outcome.backwards.mean()), len(outcome))
