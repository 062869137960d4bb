"""A third party's defence and attack, as small as they can be."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchbox import Access, Attack, Batch, Card, Draws, Losses, Purifier, ThreatModel, View


class Grey(Purifier):
    """Halves the contrast; nothing to train."""

    card = Card("grey", "halves the contrast", kind="purifier")

    def purify(self, x: Tensor, draws: Draws) -> Tensor:
        """Images with half the contrast."""
        return 0.25 + x / 2

    def losses(self, batch: Batch) -> Losses:
        """Nothing to minimise."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Brighten(Attack):
    """Adds the same brightness everywhere."""

    card = Card("brighten", "adds epsilon to every pixel")
    needs = "nothing"
    standard = (Access.WHITE_BOX,)

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """The brightest image of the ball."""
        return threat.project(x + threat.epsilon, x)
