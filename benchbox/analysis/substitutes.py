"""What transfer attacks were crafted on, where it is no second training of what they were to fool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchbox.analysis.labels import labelled
from benchbox.analysis.table import Row
from benchbox.analysis.weights import Cards
from benchbox.domain import Access


def strangers(row: Row, cards: Cards) -> list[str]:
    """The substitutes of a row that were trained by neither its recipe nor that of the classifier below it.

    Args:
        row: A trained defence.
        cards: How weights were trained, by digest; a substitute without a card is passed over, for nobody knows.

    Returns:
        What to call each, such as "pgd-at (seed 1000)".
    """
    cells = [m.evidence.cell for entry in row.entries.values() for m in entry.measurements]
    own = [(row.defense.name, dict(row.defense.arguments)), *map(_recipe, chain(cards.get(row.artifact, {})))]
    found = {cell.view.artifact for cell in cells if cell.access is Access.TRANSFER}
    substitutes = [training for name in sorted(found) for training in [*chain(cards.get(name, {}))][:1]]
    return [_called(one) for one in substitutes if "teacher" in one or _recipe(one) not in own]


def chain(card: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The record of a training, then of what it stands on; a card may say less."""
    training = card.get("training")
    while training and "arguments" in training["defense"]:
        yield training
        training = training.get("base")


def _called(training: Mapping[str, Any]) -> str:
    taught = "taught by the target's answers" if "teacher" in training else ""
    return labelled(training["defense"]["name"], f"seed {training['seed']}", taught)


def _recipe(training: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return training["defense"]["name"], training["defense"]["arguments"]
