"""Defences that prove something: exactly, falsely, or not as they should. A file as anybody could write it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbox import Card, Defense, Draws, Losses, RequestError, ThreatModel


class Rows(nn.Module):
    """Logit k is how bright the rows 2k to 2k + 2 of an image are, of a size that leaves gradients."""

    weight: Tensor

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        weight = torch.zeros(classes, 1, size, size)
        for k in range(classes):
            weight[k, :, 2 * k : 2 * k + 3] = 0.1
        self.register_buffer("weight", weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight)


class Linear(Defense):
    """A linear classifier, whose worst image of an L-infinity ball is a corner of it, known in closed form."""

    card = Card("linear", "a linear classifier with its exact certificate")

    def __init__(self, recipe, images, classifier=None) -> None:
        super().__init__(recipe, images, Rows(images.size, images.classes))

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        return (self.margins(x, y, threat) > 0).all(1)

    def margins(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        """(N, K) of the class over each other at the worst corner; infinite at the class itself."""
        if threat.norm != "linf":
            raise RequestError(f"linear proves L-infinity balls only, got {threat}; use --norm linf")
        low, high = (x - threat.epsilon).clamp(0, 1).flatten(1), (x + threat.epsilon).clamp(0, 1).flatten(1)
        over = self.classifier.weight[y][:, None] - self.classifier.weight[None]
        worst = (over.clamp(min=0) * low[:, None] + over.clamp(max=0) * high[:, None]).sum(2)
        return worst.masked_fill(F.one_hot(y, self.images.classes) == 1, torch.inf)

    def losses(self, batch) -> Losses:
        return {}


class Lying(Linear):
    """Proves everything."""

    card = Card("lying", "a linear classifier that proves everything")

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        return torch.ones(len(x), dtype=torch.bool)


class Boastful(Linear):
    """Proves every class that it is asked about, where the exact certificate proves the one it gives."""

    card = Card("boastful", "a linear classifier that proves any class")

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        return super().certified(x, self(x).argmax(1), threat)


class Margins(Linear):
    """Answers with numbers."""

    card = Card("margins", "a linear classifier that answers with margins")

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        return self.margins(x, y, threat)


class Single(Linear):
    """Answers with one bool for all images."""

    card = Card("single", "a linear classifier that proves all or none")

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        return super().certified(x, y, threat).all()


class Shortened(Linear):
    """Takes no ball."""

    card = Card("shortened", "a linear classifier whose proof takes no ball")

    def certified(self, x, y):
        return super().certified(x, y, ThreatModel("linf", 0.1))


class Dithering(Linear):
    """Adds a little noise in each draw; its certificate allows for it."""

    card = Card("dithering", "a linear classifier behind noise, with its certificate")
    randomized = True
    noise = 0.005

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        assert draws is not None
        return super().forward(x + draws.uniform(*x.shape[1:], low=-self.noise, high=self.noise), draws)

    def certified(self, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        return super().certified(x, y, ThreatModel(threat.norm, threat.epsilon + self.noise))
