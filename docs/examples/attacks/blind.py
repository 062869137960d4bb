"""An attack in three lines: it keeps, of a few random corners of the ball, the one with the highest margin."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchbox import Attack, Card, Count, Draws, Nature, ThreatModel, View, margin


@dataclass(frozen=True, kw_only=True)
class Blind(Attack):
    """Asks for scores alone.

    Attributes:
        tries: Corners tried for each image.
    """

    card = Card("blind", "random corners of the ball", kind="score-based")
    nature = Nature("random")
    needs = "scores"

    tries: Count = 20

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """Images (N, C, H, W) in the ball around x."""
        best, highest = x, margin(model(x), y)
        for i in range(self.tries):
            signs = draws.at("corner", i).uniform(*x.shape[1:]).sub(0.5).sign()
            tried = threat.project(x + threat.epsilon * signs, x)
            reached = margin(model(tried), y)
            better = reached > highest
            best = torch.where(better.view(-1, 1, 1, 1), tried, best)
            highest = torch.where(better, reached, highest)
        return best
