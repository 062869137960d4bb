"""FMN, the fast minimum-norm attack: follows the decision boundary to the nearest error, in either norm.

M. Pintor, F. Roli, W. Brendel, B. Biggio. Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints.
NeurIPS 2021 (arXiv 2102.12827), Algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchbox import MEAN_GRADIENT, Attack, Card, Count, Draws, Nature, Positive, ThreatModel, View, margin, unit

#: By how much the other logit has to lead, as a share of the logits' spread: what rounding undoes is no error.
ROUNDING = 1e-4
#: And as a share of the two logits themselves, where sums in float32 come out up to 3e-6 apart in other batches.
RESOLUTION = 2.0**-18


@dataclass(frozen=True, kw_only=True)
class FMN(Attack):
    """Steps along the gradient of the margin inside a ball that shrinks where the image errs and grows where not.

    What it finds outside the ball is brought back to its surface, so the stored distance is that of the nearest
    error wherever that lies inside. Of a randomised view, gradients are means over `model.eot` draws, and the mean
    logits say what errs: distances are optimistic.

    Attributes:
        steps: Number of steps.
        rate: Length of the first step; fifty times that in L∞, the authors' 10. It falls to a hundredth. In L2
            their 1 steps over the nearest error of small images and finds none; 0.2 was chosen on training digits.
        shrink: Share by which the ball shrinks or grows at first; it falls to a thousandth of that.
    """

    card = Card("fmn", "minimum norm", paper="Pintor et al., NeurIPS 2021", year=2021, kind="minimum norm")
    nature = Nature("iterative", climbs=("margin",), families=("minimum norm",))
    averaging = MEAN_GRADIENT
    version = 3  # 2: the length of its steps in L2; 3: which errors rounding may undo

    steps: Count = 100
    rate: Positive = 0.2
    shrink: Positive = 0.05

    def search(self, model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        """`steps` passes each way, and a forward pass at the end."""
        linf = threat.norm == "linf"
        image, nearest = x.clone(), x.clone()
        farthest = threat.norms(torch.maximum(x, 1 - x))
        distance, radius = torch.full_like(farthest, torch.inf), farthest.clone()
        for step in range(self.steps):
            cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
            rate = self.rate * (50 if linf else 1) * (0.01 + 0.99 * cosine)
            shrink = self.shrink * (0.001 + 0.999 * cosine)
            gradient, lead, logits = model.gradient(image, lambda logits: margin(logits, y))
            length, wrong = threat.norms(image - x), errs(logits, y)
            nearest, distance = _nearer(image, length, wrong, nearest, distance)
            slope = gradient.flatten(1).norm(p=1 if linf else 2, dim=1).clamp_min(1e-12)
            # The boundary as far as it is straight, and a little beyond.
            beyond = length + (lead.abs() + 2 * doubt(logits, y)) / slope
            known = torch.where(distance.isfinite(), radius * (1 + shrink), beyond)
            radius = torch.where(wrong, torch.minimum(radius * (1 - shrink), distance), known).minimum(farthest)
            image = _inside(image + rate * unit(gradient), x, radius, linf)
        with torch.no_grad():
            wrong = errs(model(image), y)
        nearest, distance = _nearer(image, threat.norms(image - x), wrong, nearest, distance)
        found = torch.where(distance.isfinite().view(-1, 1, 1, 1), nearest, image)
        return threat.project(found, x)


def errs(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) whether another class leads, and will when the image is asked about in another batch."""
    return margin(logits, y) > doubt(logits, y)


def doubt(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) leads that another batch's rounding may undo, whatever is added to all logits and however low some are.

    The spread is the median distance from the median, which stays what it is when a network masks classes away.
    """
    middle = logits.sort(1).values[:, (logits.shape[1] - 1) // 2, None]
    apart = (logits - middle).abs().sort(1).values
    true = logits.gather(1, y[:, None]).squeeze(1)
    size = torch.maximum(true.abs(), (true + margin(logits, y)).abs())
    return ROUNDING * apart[:, (logits.shape[1] - 1) // 2] + RESOLUTION * size


def _nearer(
    image: Tensor, length: Tensor, wrong: Tensor, nearest: Tensor, distance: Tensor
) -> tuple[Tensor, Tensor]:
    better = wrong & (length < distance)
    return torch.where(better.view(-1, 1, 1, 1), image, nearest), torch.where(better, length, distance)


def _inside(image: Tensor, x: Tensor, radius: Tensor, linf: bool) -> Tensor:
    """Each image inside a ball of its own, and inside the box."""
    delta, limit = image - x, radius.view(-1, 1, 1, 1)
    if linf:
        delta = torch.maximum(torch.minimum(delta, limit), -limit)
    else:
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        delta = delta * (limit / length).clamp_max(1)
    return (x + delta).clamp(0, 1)
