"""How the weights behind a table were trained: recipe, seconds, precision, code and machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchbox.canonical import digest
from benchbox.domain import Cell, Evidence

Cards = Mapping[str, Mapping[str, Any]]


def behind(evidence: Iterable[Evidence], cards: Cards) -> Cards:
    """The cards of what these cells attacked and scored, and of the classifiers below it, by digest.

    Args:
        evidence: Cells; those whose weights came from a file have no card.
        cards: What is known of trained weights, by digest.
    """
    names = {name for item in evidence for name in (item.cell.artifact, item.cell.view.artifact)}
    found: dict[str, Mapping[str, Any]] = {}
    for name in sorted(names):
        while name in cards and name not in found:
            found[name] = cards[name]
            name = base(name, cards)
    return found


def base(artifact: str, cards: Cards) -> str:
    """Digest of the weights that others are built on; "" where there are none, or no card says so.

    Args:
        artifact: Digest of the weights.
        cards: What is known of trained weights, by digest.
    """
    # A card may say less: those of the first schema hold no training.
    record = cards.get(artifact, {}).get("training", {}).get("base")
    # A training is named by the digest of its record, and holds that of its base.
    return digest(record) if record else ""


def network(cell: Cell, cards: Cards) -> str:
    """The network of a cell's target classifier: by its recipe or the card of the weights; "" where neither says.

    Args:
        cell: Any.
        cards: What is known of trained weights, by digest.
    """
    arguments = cell.defense.arguments
    base = cards.get(cell.artifact, {}).get("training", {}).get("base")
    while base:
        arguments, base = base["defense"]["arguments"], base.get("base")
    return str(arguments.get("network", ""))
