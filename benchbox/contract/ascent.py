"""The one gradient-ascent loop: FGSM, BIM, MIM, PGD and Carlini–Wagner are settings of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbox.contract.view import Trail, View
from benchbox.domain import ThreatModel

Loss = Callable[[Tensor, Tensor], Tensor]

#: Share of the pixels that an L1 step moves: SLIDE's 99th percentile.
SPARSITY = 0.01
#: Steps between two looks at who has fallen: a look waits for the device.
LOOK = 4


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per sample: logits (N, K), classes (N,) -> (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best other logit minus the true one, per sample; positive means misclassified (Carlini & Wagner 2017)."""
    true = y[:, None]
    return logits.scatter(1, true, -torch.inf).amax(1) - logits.gather(1, true).squeeze(1)


def ascend(
    model: View,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    start: Tensor,
    steps: int,
    step_size: float,
    loss: Loss = cross_entropy,
    momentum: float | None = None,
    keep: Literal["last", "best"] = "last",
    along: Callable[[Trail, Tensor], Tensor] | None = None,
    early_stop: bool = False,
) -> Tensor:
    """Projected gradient ascent on a loss, by sign steps (L∞), normalised steps (L2) or sparse sign steps (L1).

    Costs `steps` forward and backward passes; `keep="best"` adds one forward pass for the last iterate.

    Args:
        model: The view under attack.
        x: (N, C, H, W) clean images.
        y: (N,) true classes.
        threat: The ball.
        start: (N, C, H, W) first iterate, inside the ball.
        steps: Number of steps.
        step_size: Length of a step in the norm of the ball.
        loss: (logits, y) -> per-sample losses, ascended.
        momentum: μ of the accumulated, L1-normalised gradient (MI-FGSM; Dong et al. 2018, Eq. 6); None for none.
        keep: Return the last iterate, as the reference implementations do, or for each sample the best one
            seen: misclassified before correct, then by loss.
        along: (trail, y) -> per-sample losses, ascended in the place of `loss`, which then only tells iterates
            apart that `best` chooses from.
        early_stop: Let a sample go at the first iterate that is misclassified, as `View.early_stop` permits, where
            the best is kept. Losses see fewer samples then: they must not hang on which.

    Returns:
        (N, C, H, W) images inside the ball.
    """
    way = _Way(x, y, start, torch.zeros_like(x), _Best.nothing(start, y))
    found, rows = start, torch.arange(len(y), device=y.device)
    early_stop &= keep == "best" and not model.randomized
    step = _stepper(x, threat, step_size)
    for number in range(steps):
        if early_stop and number % LOOK == 1 and bool(way.best.wrong.any()):
            fallen, stands = way.best.wrong, ~way.best.wrong
            found = found.index_copy(0, rows[fallen], way.best.x[fallen])
            model.leave(fallen)
            way, rows, model = way.rows(stands), rows[stands], model.rows(stands)
            if not len(rows):
                return found
            step = _stepper(way.x, threat, step_size)
        way = _advance(way, model, step, loss, momentum, along, keep == "best")
    if keep == "last":
        return way.x_adv
    with torch.no_grad():
        logits = model(way.x_adv)
    best = way.best.update(way.x_adv, logits.argmax(1) != way.y, loss(logits, way.y))
    return found.index_copy(0, rows, best.x)


def _advance(
    way: _Way,
    model: View,
    step: Callable[[Tensor, Tensor], Tensor],
    loss: Loss,
    momentum: float | None,
    along: Callable[[Trail, Tensor], Tensor] | None,
    keeps_best: bool,
) -> _Way:
    """One step, and what the model said of the iterate it started from."""
    if along is None:
        gradient, losses, logits = model.gradient(way.x_adv, lambda logits: loss(logits, way.y))
    else:
        gradient, _, logits = model.along(way.x_adv, lambda trail: along(trail, way.y))
        losses = loss(logits, way.y)
    best = way.best.update(way.x_adv, logits.argmax(1) != way.y, losses) if keeps_best else way.best
    velocity = way.velocity
    if momentum is not None:
        # A gradient of exactly zero must leave the sample movable: 0/0 would freeze it as NaN for ever.
        mean = gradient.abs().flatten(1).mean(1).clamp_min(1e-30)
        velocity = gradient = momentum * velocity + gradient / mean.view(-1, 1, 1, 1)
    return way._replace(x_adv=step(way.x_adv, gradient), velocity=velocity, best=best)


def _stepper(x: Tensor, threat: ThreatModel, size: float) -> Callable[[Tensor, Tensor], Tensor]:
    """What takes an iterate and its gradient one step on and back into the ball.

    On a GPU a small network waits for the launch of every operation, so there are as few as can be.
    """
    if threat.norm == "linf":
        # The ball cut with the box is a box itself, whose walls stay where they are.
        low, high = (x - threat.epsilon).clamp_(0, 1), (x + threat.epsilon).clamp_(0, 1)
        return lambda x_adv, gradient: x_adv.add(gradient.sign(), alpha=size).clamp_(low, high)
    if threat.norm == "l1":
        # A pixel at its wall takes a share of the few that move, and does not move.
        return lambda x_adv, gradient: threat.project(
            x_adv + size * direction(gradient * ((x_adv + gradient.sign()).clamp(0, 1) != x_adv), threat), x
        )
    return lambda x_adv, gradient: threat.project(x_adv + size * direction(gradient, threat), x)


def direction(gradient: Tensor, threat: ThreatModel) -> Tensor:
    """The steepest unit step of the ball's norm: the sign for L∞, the normalised gradient for L2.

    In L1 the steepest step is a single pixel; the signs of the largest hundredth of the gradient are taken, which
    is nearly as steep and gets somewhere (SLIDE; Tramèr & Boneh, NeurIPS 2019, arXiv 1904.13000, section 4).
    """
    if threat.norm == "linf":
        return gradient.sign()
    if threat.norm == "l1":
        return sparse_sign(gradient, torch.full_like(gradient[:, 0, 0, 0], SPARSITY))
    return unit(gradient)


def unit(gradient: Tensor) -> Tensor:
    """Each gradient (N, C, H, W) at length 1 in L2, however small it is; one of nothing but zeros stays.

    A power of two first takes its largest entry to between 1 and 2: the squares of a confident model's gradient
    would be lost in float32. It changes no digit of a gradient whose squares are not.
    """
    largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    power = largest / (2 * torch.frexp(largest).mantissa)
    near_one = gradient / power.view(-1, 1, 1, 1)
    length: Tensor = near_one.flatten(1).norm(dim=1).clamp_min(1e-12)
    return near_one / length.view(-1, 1, 1, 1)


def sparse_sign(gradient: Tensor, share: Tensor) -> Tensor:
    """Signs of the largest entries of each gradient (N, C, H, W), a share (N,) of them; of length 1 in L1."""
    sizes = gradient.flatten(1).abs()
    count = (share * sizes.shape[1]).ceil().long().clamp(1, sizes.shape[1])
    least = sizes.sort(1, descending=True).values.gather(1, count[:, None] - 1)
    signs = gradient.flatten(1).sign() * (sizes >= least)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


class _Best(NamedTuple):
    """The best iterate of each sample so far: a misclassified one beats any correct one, then the loss decides."""

    x: Tensor
    wrong: Tensor
    loss: Tensor

    @classmethod
    def nothing(cls, start: Tensor, y: Tensor) -> _Best:
        """Before anything was asked: whatever comes is better."""
        return cls(start, torch.zeros_like(y, dtype=torch.bool), torch.full(y.shape, -torch.inf, device=y.device))

    def update(self, x: Tensor, wrong: Tensor, loss: Tensor) -> _Best:
        better = torch.where(wrong == self.wrong, loss > self.loss, wrong)
        return _Best(
            torch.where(better.view(-1, 1, 1, 1), x, self.x),
            self.wrong | wrong,
            torch.where(better, loss, self.loss),
        )


class _Way(NamedTuple):
    """How far an ascent has come; row i of each tensor is one sample.

    Attributes:
        x: Clean image.
        y: True class.
        x_adv: Iterate.
        velocity: The accumulated gradient.
        best: Of the iterates before.
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor
    velocity: Tensor
    best: _Best

    def rows(self, keep: Tensor) -> _Way:
        """Some of the samples."""
        best = _Best(*(tensor[keep] for tensor in self.best))
        return _Way(self.x[keep], self.y[keep], self.x_adv[keep], self.velocity[keep], best)
