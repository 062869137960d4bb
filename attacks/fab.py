"""FAB-T by itself: the nearest misclassified image, sought towards one class after the other.

F. Croce, M. Hein. Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack. ICML 2020
(arXiv 1907.02044), targeted as in AutoAttack (arXiv 2003.01690).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchbox import MEAN_GRADIENT, Attack, Card, Count, Draws, Nature, ThreatModel, View

from ._fab import fab
from ._survivors import runner_up


@dataclass(frozen=True, kw_only=True)
class FABT(Attack):
    """Minimises the distance; what it finds outside the ball is brought back to its surface.

    So the size of the change is the distance of the decision boundary wherever that lies inside the ball. Of a
    randomised view, gradients are means over `model.eot` draws, and one draw says whether an image is
    misclassified: its distances are optimistic.

    Attributes:
        steps: Steps towards each class.
        targets: Classes aimed at, at most: the most likely others.
    """

    card = Card("fab-t", "minimum norm, targeted", paper="Croce & Hein, ICML 2020", year=2020, kind="minimum norm")
    nature = Nature("iterative", climbs=("margin",), families=("targeted", "minimum norm"))
    averaging = MEAN_GRADIENT
    balls = ("linf", "l2", "l1")

    steps: Count = 100
    targets: Count = 9

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """For each class 2 `steps` + 2 forward and `steps` backward passes; one forward pass to rank them."""
        with torch.no_grad():
            logits = model(x)
            nearest, distance = x.clone(), torch.where(logits.argmax(1) == y, torch.inf, 0.0)
            for rank in range(1, min(self.targets, logits.shape[1] - 1) + 1):
                found = fab(model, x, y, threat, runner_up(logits, y, rank), steps=self.steps)
                length = threat.norms(found.x - x)
                # The clean image comes back where nothing was found.
                nearer = (length > 0) & (length < distance)
                nearest = torch.where(nearer.view(-1, 1, 1, 1), found.x, nearest)
                distance = torch.where(nearer, length, distance)
            return threat.project(nearest, x)
