"""Random points of the ball: what an attacker finds without searching.

N. Carlini, A. Athalye, N. Papernot, et al. On Evaluating Adversarial Robustness. arXiv 1902.06705 (2019),
section 5.3: where random search succeeds and a gradient attack fails, the gradient is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchbox import Access, Attack, Card, Draws, ThreatModel, View
from benchbox.ascent import margin


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Keeps, for each sample, the random point of the ball with the highest margin.

    The margin is positive exactly where the model errs, so a misclassified point is always preferred.

    Attributes:
        draws: Points tried for each image.
    """

    card = Card("noise", "random points of the ball", paper="Carlini et al., 2019", year=2019, kind="score-based")
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "scores"
    standard = (Access.WHITE_BOX,)

    draws: int = 100

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """One forward pass for each point (times `model.eot` when the model is randomised)."""
        points = (threat.random_start(x, draws.at("point", i)) for i in range(self.draws))
        return worst(model, y, points) if self.draws else x.clone()


def worst(
    model: View, y: Tensor, candidates: Iterable[Tensor], loss: Callable[[Tensor, Tensor], Tensor] = margin
) -> Tensor:
    """For each sample, the candidate with the highest loss; the first of equals.

    Args:
        model: For a randomised one the loss is the mean over `model.eot` fresh draws.
        y: (N,) true classes.
        candidates: At least one (N, C, H, W) batch of images.
        loss: (logits, y) -> losses (N,).

    Returns:
        (N, C, H, W) images.
    """
    best = highest = None
    for candidate in candidates:
        with torch.no_grad():
            losses = torch.stack([loss(model(candidate), y) for _ in range(model.eot)]).mean(0)
        if best is None or highest is None:
            best, highest = candidate, losses
            continue
        better = losses > highest
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
        highest = torch.where(better, losses, highest)
    assert best is not None
    return best
