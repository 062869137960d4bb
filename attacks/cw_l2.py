"""Carlini–Wagner's L2 attack as published: the smallest change that errs, and not the best one inside a ball.

N. Carlini, D. Wagner. Towards Evaluating the Robustness of Neural Networks. IEEE S&P 2017 (arXiv 1608.04644),
sections V and VI.A; constants of the authors' `l2_attack.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from benchbox import MEAN_GRADIENT, Attack, Card, Count, Draws, Nature, Positive, ThreatModel, View, margin

from .fmn import errs

#: A constant above this has found nothing, and is multiplied instead of halved.
NEVER = 1e9
#: Images are kept this far from black and white, where tanh has no gradient.
EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class CWL2(Attack):
    """Adam on squared distance + c · f₆ in tanh space, with a binary search for each sample's c.

    What it finds outside the ball is brought back to its surface, so the stored distance is that of the nearest
    error wherever that lies inside. Of a randomised view, gradients are means over `model.eot` draws, and the mean
    logits say what errs: distances are optimistic.

    Attributes:
        steps: Steps for each constant; 10,000 in the authors' program, which stops where nothing moves.
        searches: Constants tried.
        rate: Adam's.
        constant: The first one.
        confidence: κ: by how much the other logit has to lead.
    """

    card = Card("cw-l2", "minimum L2 norm", paper="Carlini & Wagner, S&P 2017", year=2017, kind="minimum norm")
    nature = Nature("iterative", climbs=("margin",), families=("minimum norm",))
    averaging = MEAN_GRADIENT
    version = 2  # which errors rounding may undo

    steps: Count = 1000
    searches: Count = 9
    rate: Positive = 0.01
    constant: Positive = 1e-3
    confidence: Annotated[float, Field(ge=0)] = 0.0

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`searches` × `steps` passes each way, and a forward pass for each search."""
        c, low, high = (torch.full((len(x),), value, device=x.device) for value in (self.constant, 0.0, 1e10))
        nearest, distance = x.clone(), torch.full_like(c, torch.inf)
        for _ in range(self.searches):
            found, length = self._minimise(model, x, y, c)
            nearer = length < distance
            nearest = torch.where(nearer.view(-1, 1, 1, 1), found, nearest)
            distance = torch.minimum(length, distance)
            erred = length.isfinite()
            high, low = torch.where(erred, torch.minimum(high, c), high), torch.where(erred, low, c)
            c = torch.where(high < NEVER, (low + high) / 2, c * 10)
        return threat.project(nearest, x)

    def _minimise(self, model: View, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest error (n, C, H, W) that one constant each comes by, and how far it is (n,), or infinity."""

        def f6(logits: Tensor) -> Tensor:
            return (self.confidence - margin(logits, y)).clamp_min(0)

        w = torch.atanh((2 * x - 1) * (1 - EDGE))
        adam = torch.optim.Adam([w], lr=self.rate)
        nearest, distance = x.clone(), torch.full_like(c, torch.inf)
        for step in range(1, self.steps + 2):
            image = (torch.tanh(w) + 1) / 2
            if step > self.steps:
                logits, gradient = model(image).detach(), None
            else:
                gradient, _, logits = model.gradient(image, f6)
            length = (image - x).flatten(1).norm(dim=1)
            nearer = errs(logits, y) & (margin(logits, y) >= self.confidence) & (length < distance)
            nearest = torch.where(nearer.view(-1, 1, 1, 1), image, nearest)
            distance = torch.where(nearer, length, distance)
            if gradient is None:
                break
            w.grad = (2 * (image - x) + c.view(-1, 1, 1, 1) * gradient) * 2 * image * (1 - image)
            adam.step()
        return nearest, distance
