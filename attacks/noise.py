"""Random points of the ball: what an attacker finds without searching.

N. Carlini, A. Athalye, N. Papernot, et al. On Evaluating Adversarial Robustness. arXiv 1902.06705 (2019),
section 5.3: where random search succeeds and a gradient attack fails, the gradient is masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from benchbox import LOOK, Access, Attack, Card, Count, Draws, Nature, ThreatModel, View, margin


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

    def declare(self) -> Nature | None:
        """Each point is a query."""
        nature = super().declare()
        return nature and replace(nature, queries=self.draws)

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """One forward pass for each point (times `model.eot` when the model is randomised)."""
        found, rows, best = x, torch.arange(len(y), device=y.device), None
        for i in range(self.draws):
            point = _ask(model, y, threat.random_start(x, draws.at("point", i)))
            best = point if best is None else best.or_worse(point)
            if model.early_stop and i % LOOK == 0 and bool((best.errors > 0).any()):
                fallen, stands = best.errors > 0, best.errors == 0
                found = found.index_copy(0, rows[fallen], best.x[fallen])
                model.leave(fallen)
                x, y, rows, draws = x[stands], y[stands], rows[stands], draws.rows(stands)
                model, best = model.rows(stands), _Point(*(part[stands] for part in best))
                if not len(rows):
                    return found
        assert best is not None
        return found.index_copy(0, rows, best.x)


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
    return reduce(_Point.or_worse, (_ask(model, y, candidate) for candidate in candidates)).x


class _Point(NamedTuple):
    """An image of each sample, in how many draws the model gets it wrong, and its mean margin."""

    x: Tensor
    errors: Tensor
    margins: Tensor

    def or_worse(self, other: _Point) -> _Point:
        """For each sample the one that is worse for the model."""
        worse = (other.errors > self.errors) | ((other.errors == self.errors) & (other.margins > self.margins))
        return _Point(
            torch.where(worse.view(-1, 1, 1, 1), other.x, self.x),
            torch.where(worse, other.errors, self.errors),
            torch.where(worse, other.margins, self.margins),
        )


def _ask(model: View, y: Tensor, x: Tensor) -> _Point:
    with torch.no_grad():
        each = torch.stack([margin(model(x), y) for _ in range(model.eot)])
    return _Point(x, (each > 0).sum(0), each.mean(0))
