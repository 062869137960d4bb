"""Auto-PGD in the L1 ball: sparse steps whose share of the pixels follows that of the best image so far.

F. Croce, M. Hein. Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers. ICML 2021
(arXiv 2103.01208), Algorithm 1 and section 3.3; constants as in the authors' AutoAttack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from benchbox import LOOK, Draws, ThreatModel, View, sparse_sign

from ._losses import Loss
from ._survivors import Found, over_pixels

#: Radii that are searched one after the other, as multiples of epsilon, and their shares of the steps.
STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
#: A step moves so many times fewer pixels than the best image has changed.
SPARSER = 1.5
#: Below this ratio of changed pixels to those at the last review, sparsity is on its way: steps are long again.
STILL_SPARSER = 0.95
#: Otherwise steps become so many times shorter,
SHORTER = 1.5
#: but never shorter than epsilon divided by this.
SHORTEST = 10.0


def apgd_l1(
    model: View,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    draws: Draws,
    *,
    loss: Loss,
    target: Tensor,
    steps: int,
    leave: bool,
) -> Found:
    """As `apgd`, in three stages: the balls of 3, 2 and 1 times the radius, each from where the last one ended.

    `steps` + 3 passes each way. What breaks the model in the larger balls is no success.
    """
    here = threat.scaled(STAGES[0][0]).project(x + draws.normal(*x.shape[1:]), x)
    for (scale, _), count, final in zip(STAGES, _counts(steps), (False, False, True), strict=True):
        ball = threat.scaled(scale)
        end = _stage(model, x, y, ball, ball.project(here, x), loss, target, count, leave and final)
        here = end.best
    found = torch.where(over_pixels(end.broken), end.found, end.best)
    return Found(found, end.broken)


def _counts(steps: int) -> Iterator[int]:
    """Steps of each stage; the last takes what is left."""
    first, second = (math.ceil(share * steps) for _, share in STAGES[:2])
    yield from (first, second, max(steps - first - second, 0))


@dataclass
class _Run:
    """A stage under way; row i of each tensor is one sample.

    Attributes:
        x: Clean image.
        y: True class.
        target: Class aimed at.
        here: Iterate.
        gradient: At `here`.
        best: Iterate of highest loss.
        best_gradient: There.
        best_loss: There.
        size: Length of a step (n, 1, 1, 1).
        share: Of the pixels that a step moves.
        changed: Pixels that the best iterate had changed at the last review.
        found: The last misclassified iterate; with `leave`, the first.
        broken: Whether there is one.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    here: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor
    share: Tensor
    changed: Tensor
    found: Tensor
    broken: Tensor

    def rows(self, keep: Tensor) -> _Run:
        """Some of the samples."""
        return replace(self, **{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    def advance(self, model: View, ball: ThreatModel, loss: Loss, *, leave: bool) -> None:
        """One step, and what the model says of where it leads."""
        self.here = ball.project(self.here + self.size * sparse_sign(self.gradient, self.share), self.x)
        self.gradient, losses, logits = model.gradient(self.here, lambda z: loss(z, self.y, self.target))
        if not model.randomized:
            wrong = logits.argmax(1) != self.y
            self.found = torch.where(over_pixels(wrong & ~self.broken if leave else wrong), self.here, self.found)
            self.broken = self.broken | wrong
        better = losses > self.best_loss
        self.best = torch.where(over_pixels(better), self.here, self.best)
        self.best_gradient = torch.where(over_pixels(better), self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, losses, self.best_loss)

    def review(self, epsilon: float) -> None:
        """Who became sparser goes on from the best iterate with full steps; the others' steps become shorter."""
        changed = _changed(self.best - self.x)
        sparser = over_pixels(changed / self.changed.clamp_min(1) < STILL_SPARSER)
        self.share = changed / self.x[0].numel() / SPARSER
        self.size = torch.where(sparser, epsilon, self.size / SHORTER).clamp(epsilon / SHORTEST, epsilon)
        self.here = torch.where(sparser, self.best, self.here)
        self.gradient = torch.where(sparser, self.best_gradient, self.gradient)
        self.changed = changed


def _stage(
    model: View,
    x: Tensor,
    y: Tensor,
    ball: ThreatModel,
    here: Tensor,
    loss: Loss,
    target: Tensor,
    steps: int,
    leave: bool,
) -> _Run:
    """`steps` + 1 passes each way in one ball. A sample that leaves keeps the image it left with."""
    whole = run = _start(model, x, y, ball, here, loss, target)
    part, rows = model, torch.arange(len(y), device=y.device)
    wait = max(int(0.04 * steps), 1)
    for step in range(steps):
        if leave and step % LOOK == 0 and bool(run.broken.any()):
            model.leave(rows[run.broken])
            whole = _into(whole, rows, run)
            rows, run = rows[~run.broken], run.rows(~run.broken)
            part = model.rows(rows)
            if not len(rows):
                return whole
        run.advance(part, ball, loss, leave=leave)
        if (step + 1) % wait == 0:
            run.review(ball.epsilon)
    return _into(whole, rows, run)


def _into(whole: _Run, rows: Tensor, run: _Run) -> _Run:
    """The whole with what is known of some of its samples now."""
    merged = {f.name: getattr(whole, f.name).index_copy(0, rows, getattr(run, f.name)) for f in fields(whole)}
    return replace(whole, **merged)


def _start(model: View, x: Tensor, y: Tensor, ball: ThreatModel, here: Tensor, loss: Loss, target: Tensor) -> _Run:
    gradient, losses, logits = model.gradient(here, lambda z: loss(z, y, target))
    wrong = torch.zeros_like(y, dtype=torch.bool) if model.randomized else logits.argmax(1) != y
    changed = _changed(here - x)
    return _Run(
        x=x, y=y, target=target, here=here, gradient=gradient,
        best=here, best_gradient=gradient, best_loss=losses,
        size=torch.full_like(x[:, :1, :1, :1], ball.epsilon),
        share=(changed / x[0].numel() / SPARSER), changed=changed,
        found=here, broken=wrong,
    )  # fmt: skip


def _changed(delta: Tensor) -> Tensor:
    """(n,) how many pixels a change touches."""
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)
