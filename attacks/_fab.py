"""FAB, the fast adaptive boundary attack: the nearest image on the other side of the decision boundary.

F. Croce, M. Hein. Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack. ICML 2020
(arXiv 1907.02044), Algorithm 1, towards one class at a time; constants as in the authors' AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from benchbox import LOOK, Norm, ThreatModel, View

from ._survivors import Found

#: α_max: how far an iterate is pulled back towards the clean image.
PULL = 0.1
#: η: a step ends a little behind the linearised boundary.
OVERSHOOT = 1.05
#: β: what is left of a successful perturbation before the search goes on.
BACKWARD = 0.9
#: Rounds of Newton's method, at most; two or three are the rule.
ROUNDS = 12


def fab(
    model: View,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    target: Tensor,
    *,
    steps: int = 100,
    leave: bool = False,
) -> Found:
    """One run towards one class each: 2 `steps` + 2 forward and `steps` backward passes. Draws nothing at random.

    Args:
        model: The view under attack.
        x: (n, C, H, W) clean images.
        y: (n,) true classes.
        threat: Its norm is minimised; its radius says who is broken.
        target: (n,) other classes.
        steps: Number of steps.
        leave: A sample stops at the first misclassified image inside the ball, instead of looking for nearer ones.

    Returns:
        The nearest misclassified image, wherever the ball ends; the clean one where there is none or where it is
        misclassified itself. Broken is whose image is inside the ball.
    """
    logits = model(x)
    right = logits.argmax(1) == y
    rows = right.nonzero().flatten()
    found, distance = x.clone(), torch.where(right, torch.inf, 0.0)
    aim = torch.zeros_like(logits).scatter_(1, target[:, None], 1.0).scatter_(1, y[:, None], -1.0)
    run = _Run(x, y, aim, x, found, distance).rows(rows)
    part = model.rows(rows)
    for step in range(steps):
        if not len(rows):
            break
        run.advance(part, threat)
        if leave and (step % LOOK == 0 or step == steps - 1):
            stand = run.distance > threat.epsilon
            if not bool(stand.all()):
                fallen = ~stand
                found[rows[fallen]], distance[rows[fallen]] = run.found[fallen], run.distance[fallen]
                run, rows = run.rows(stand), rows[stand]
                part = model.rows(rows)
    found[rows], distance[rows] = run.found, run.distance
    wrong = model(found).argmax(1) != y
    return Found(found, wrong & (distance <= threat.epsilon))


@dataclass
class _Run:
    """A run under way; row i of each tensor is one sample.

    Attributes:
        x: Clean image.
        y: True class.
        aim: (n, K) 1 for the class aimed at, -1 for the true one, 0 for the others.
        here: Iterate.
        found: Nearest misclassified image so far.
        distance: Its distance; infinite as long as there is none.
    """

    x: Tensor
    y: Tensor
    aim: Tensor
    here: Tensor
    found: Tensor
    distance: Tensor

    def rows(self, keep: Tensor) -> _Run:
        """Some of the samples."""
        return _Run(*(getattr(self, f.name)[keep] for f in fields(self)))

    def advance(self, model: View, threat: ThreatModel) -> None:
        """Step to the linearised boundary, ask what the model says there, and retreat if it errs."""
        gradient, lead, _ = model.gradient(self.here, self.lead)
        # How much the lead has to grow, by the linear model, from the iterate and from the clean image.
        slope = (gradient * (self.here - self.x)).flatten(1).sum(1)
        rise = torch.stack([-lead, slope - lead])
        ends = torch.stack([self.here, self.x])
        steps = onto_hyperplane(ends, gradient, rise, threat.norm)
        length = threat.norms(steps.flatten(0, 1)).clamp_min(1e-8).view(2, -1, 1, 1, 1)
        pull = (length[0] / (length[0] + length[1])).clamp_max(PULL)
        ends.add_(steps, alpha=OVERSHOOT)
        here = torch.lerp(ends[0], ends[1], pull).clamp_(0, 1)
        wrong = model(here).argmax(1) != self.y
        delta = here - self.x
        distance = threat.norms(delta)
        nearer = wrong & (distance < self.distance)
        self.found = torch.where(nearer.view(-1, 1, 1, 1), here, self.found)
        self.distance = torch.where(nearer, distance, self.distance)
        self.here = torch.where(wrong.view(-1, 1, 1, 1), self.x + BACKWARD * delta, here)

    def lead(self, logits: Tensor) -> Tensor:
        """By how much the target's logit exceeds the true one; negative as long as the model is right."""
        return (logits.float() * self.aim).sum(1)


def onto_hyperplane(points: Tensor, normal: Tensor, rise: Tensor, norm: Norm) -> Tensor:
    """The shortest steps within the box [0, 1] that raise a linear function by given amounts.

    A pixel moves by min(λ u, room), where room is its way to the wall and u is 1 in L∞ and the size of its weight
    in L2; λ solves Σ |w| min(λ u, room) = |rise|. The left side is concave and piecewise linear in λ: rounds of
    Newton's method from 0 approach the solution from below and reach it when no further pixel hits its wall. In L1
    pixels go to their walls, that of the largest weight first, until the rest is one pixel's.

    Args:
        points: (m, n, C, H, W) in [0, 1].
        normal: (n, C, H, W) weights w of the linear function.
        rise: (m, n) by how much it has to grow (or, negative, to fall).
        norm: What is shortest.

    Returns:
        (m, n, C, H, W) steps; where the box does not reach far enough, those to its walls.
    """
    # Scaled so that the largest weight is 1: neither squares nor small gradients underflow.
    weight = normal.abs()
    scale = weight.flatten(1).amax(1).clamp_min(1e-30)
    weight = weight / scale.view(-1, 1, 1, 1)
    rise = (rise / scale).clamp(-1e12, 1e12)
    towards = rise.sign().view(*rise.shape, 1, 1, 1) * normal.sign()
    # 1 - p upwards, p downwards, 0 where the weight is 0.
    room = torch.addcmul(towards.clamp_min(0), points, towards, value=-1)
    if norm == "l1":
        return towards * _largest_first(weight, room, rise.abs())
    # In L∞ every pixel moves alike: its wall is as far as its room, and it gains its weight.
    linf = norm == "linf"
    wall, gain = (room, weight) if linf else (room / weight.clamp_min(1e-12), weight * weight)
    capped = weight * room
    at_walls = _sum(capped)
    needed, size = rise.abs() - at_walls, torch.zeros_like(rise)
    for number in range(ROUNDS):
        free = wall > size.view(*size.shape, 1, 1, 1)
        further = (needed + (_sum(capped * free) if number else at_walls)) / _sum(gain * free).clamp_min(1e-12)
        if not bool((further > size * (1 + 1e-6)).any()):
            break
        size = torch.maximum(size, further)
    reach = size.view(*size.shape, 1, 1, 1)
    return towards * torch.minimum(reach if linf else reach * weight, room)


def _largest_first(weight: Tensor, room: Tensor, rise: Tensor) -> Tensor:
    """(m, n, C, H, W) how far each pixel goes, by falling weight (n, C, H, W), to gain a rise (m, n) in all."""
    order = weight.flatten(1).argsort(1, descending=True).expand(len(rise), -1, -1)
    rooms, weights = room.flatten(2).gather(2, order), weight.flatten(1).expand(len(rise), -1, -1).gather(2, order)
    gains = rooms * weights
    before = (gains.double().cumsum(2) - gains).to(gains.dtype)
    steps = ((rise[..., None] - before) / weights.clamp_min(1e-12)).clamp_min(0).minimum(rooms)
    return torch.zeros_like(steps).scatter(2, order, steps).view_as(room)


def _sum(pixels: Tensor) -> Tensor:
    return pixels.flatten(2).sum(2)
