"""Random points of the ball: what an attacker finds without searching.

N. Carlini, A. Athalye, N. Papernot, et al. On Evaluating Adversarial Robustness. arXiv 1902.06705 (2019),
section 5.3: where random search succeeds and a gradient attack fails, the gradient is masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from benchbox import Access, Attack, Card, Count, Draws, Nature, ThreatModel, View, margin


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Keeps, for each sample, the random point of the ball with the highest margin.

    The margin is positive exactly where the model errs, so a misclassified point is always preferred.

    Attributes:
        draws: Points tried for each image.
    """

    card = Card("noise", "random points of the ball", paper="Carlini et al., 2019", year=2019, kind="score-based")
    nature = Nature("random")
    needs: ClassVar[Literal["gradient", "scores", "labels", "nothing"]] = "scores"
    standard = (Access.WHITE_BOX,)
    averaging = "share of draws that err, then the mean of the per-draw margins"
    balls = ("linf", "l2", "l1")

    draws: Count = 100

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """One forward pass for each point (times `model.eot` when the model is randomised)."""
        points = (threat.random_start(x, draws.at("point", i)) for i in range(self.draws))
        return worst(model, y, points)


def worst(model: View, y: Tensor, candidates: Iterable[Tensor]) -> Tensor:
    """For each sample, the candidate that the model gets wrong most often, then the one of highest margin.

    A randomised model is asked in `model.eot` fresh draws. Errors come first because they are what is scored: a
    few draws with an enormous loss do not outweigh many correct ones.

    Args:
        model: The view under attack.
        y: (N,) true classes.
        candidates: At least one (N, C, H, W) batch of images.

    Returns:
        (N, C, H, W) images; the first of equals.
    """
    best = errors = margins = None
    for candidate in candidates:
        with torch.no_grad():
            each = torch.stack([margin(model(candidate), y) for _ in range(model.eot)])
        wrong, mean = (each > 0).sum(0), each.mean(0)
        if best is None or errors is None or margins is None:
            best, errors, margins = candidate, wrong, mean
            continue
        better = (wrong > errors) | ((wrong == errors) & (mean > margins))
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
        errors, margins = torch.where(better, wrong, errors), torch.where(better, mean, margins)
    assert best is not None
    return best
