"""Several trainings of one recipe: then a training is the unit, not an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from benchbox.analysis.labels import labelled
from benchbox.analysis.table import Row


@dataclass(frozen=True)
class Trainings:
    """One recipe, trained with several seeds.

    Attributes:
        label: Its name, and how it departs from the usual recipe.
        rows: One a training; each is scored.
    """

    label: str
    rows: tuple[Row, ...]

    @property
    def robust(self) -> list[float]:
        """Robust accuracy of each, in percent."""
        return [row.robust.percent for row in self.rows if row.robust]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        values = self.robust
        return {
            "label": self.label,
            "training_seeds": [row.training_seed for row in self.rows],
            "mean": fmean(values),
            "sd": stdev(values),
            "min": min(values),
        }


def repeated(rows: Sequence[Row]) -> list[Trainings]:
    """The recipes that were trained more than once, in the order of their best row."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.shares is not None and not row.undecided:
            groups.setdefault(row.defense.identity, []).append(row)
    return [
        Trainings(label(found[0]), tuple(sorted(found, key=lambda row: row.training_seed)))
        for found in groups.values()
        # Equal seeds are one recipe on several bases, which are no repetitions.
        if len(found) > 1 and len({row.training_seed for row in found}) == len(found)
    ]


def label(row: Row) -> str:
    """A row's label without what tells the trainings apart."""
    _, _, inside = row.label.partition(" (")
    kept = [part for part in inside.removesuffix(")").split(", ") if part and part != f"seed {row.training_seed}"]
    return labelled(row.defense.name, *kept)
