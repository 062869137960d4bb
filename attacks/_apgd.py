"""Auto-PGD: gradient ascent whose step size follows the progress of the loss.

F. Croce, M. Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks. ICML 2020 (arXiv 2003.01690), Algorithm 1 and Eq. 6 and 7; constants as in the authors' program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from benchbox import LOOK, Draws, ThreatModel, View, direction

from ._apgd_l1 import apgd_l1
from ._losses import Loss
from ._survivors import Found, over_pixels

#: α of Algorithm 1: how much of a step is the gradient's; the rest repeats the previous one.
MOMENTUM = 0.75
#: ρ: a step size is kept if more than this share of the steps since the last checkpoint raised the loss.
PROGRESS = 0.75


def checkpoints(steps: int) -> Iterator[int]:
    """Numbers of steps after which step sizes are reviewed: after 22 %, then ever sooner, at least 6 % apart."""
    wait, at = max(int(0.22 * steps), 1), 0
    while (at := at + wait) <= steps:
        yield at
        wait = max(wait - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))


def apgd(
    model: View,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    draws: Draws,
    *,
    loss: Loss,
    target: Tensor | None = None,
    steps: int = 100,
    leave: bool = False,
    sure: int = 0,
) -> Found:
    """One run from a random point of the ball's surface: `steps` + 1 passes each way, in L1 `steps` + 3.

    Args:
        model: The view under attack. Of a randomised one, losses and gradients are means over `model.eot` draws.
        x: (n, C, H, W) clean images.
        y: (n,) true classes.
        threat: The ball.
        draws: Row i belongs to sample i.
        loss: What is ascended.
        target: (n,) class a targeted loss aims at.
        steps: Number of steps.
        leave: A sample stops at the image that breaks it, instead of going on to images that break it further
            (which matters to whoever scores them on another model). Of no effect on a randomised view.
        sure: Of a randomised view alone: a sample leaves at its image of highest loss once that errs in so many
            fresh draws, all of them; 0 keeps everyone to the last step. Of no effect in L1.

    Returns:
        The last image that was misclassified (with `leave`, the first), else the one of highest loss; of a
        randomised view always the latter, and only who left counts as broken.
    """
    leave, sure = leave and not model.randomized, sure if model.randomized else 0
    target = y if target is None else target
    if threat.norm == "l1":
        return apgd_l1(model, x, y, threat, draws, loss=loss, target=target, steps=steps, leave=leave)
    run = _start(model, x, y, threat, draws, loss, target)
    found, broken = x.clone(), torch.zeros_like(y, dtype=torch.bool)
    part, rows, reviews = model, torch.arange(len(y), device=y.device), set(checkpoints(steps))
    for step in range(steps + 1):
        if (leave and (step % LOOK == 0 or step == steps)) or (sure and step in looks(steps)):
            gone = _surely_wrong(model, rows, run, sure, step) if sure else run.broken
            if some := bool(gone.any()):
                fallen = rows[gone]
                model.leave(fallen)
                found[fallen], broken[fallen] = run.end(sure)[gone], True
                run, rows = run.rows(~gone), rows[~gone]
            if not len(rows):
                return Found(found, broken)
            if some or sure:
                part = afresh(model, rows, "step", step) if sure else model.rows(rows)
        if step < steps:
            run.advance(part, threat, loss, first=step == 0, leave=leave)
        if step + 1 in reviews:
            run.review(step + 1)
    found[rows] = run.end(model.randomized)
    broken[rows] = run.broken & (not model.randomized)
    return Found(found, broken)


def afresh(model: View, rows: Tensor, *path: str | int) -> View:
    """A randomised view of some samples whose draws are named by where it is asked, whoever else is."""
    part = model.rows(rows)
    part.draws = part.draws.at(*path)
    return part


def looks(steps: int) -> tuple[int, ...]:
    """After how many steps to see who is surely wrong: ever more seldom, since each look may be mistaken."""
    return (*(LOOK * 2**i for i in range(steps) if LOOK * 2**i < steps), steps)


def _surely_wrong(model: View, rows: Tensor, run: _Run, sure: int, step: int) -> Tensor:
    """(n,) bool: the image of highest loss errs in the mean of its draws, and in each of `sure` fresh ones."""
    at = run.broken.nonzero().flatten()
    for first in range(0, sure, model.eot):
        if not len(at):
            break
        part = afresh(model, rows[at], "sure", step, first)
        asked = range(first, min(first + model.eot, sure))
        at = at[torch.stack([part(run.best[at]).argmax(1) != run.y[at] for _ in asked]).all(0)]
    return torch.zeros_like(run.broken).index_fill(0, at, True)


@dataclass
class _Run:
    """A run under way; row i of each tensor is one sample.

    Attributes:
        x: Clean image.
        low: Smallest permitted pixel; of the L2 ball, of the box.
        high: Largest, likewise.
        y: True class.
        target: Class aimed at.
        here: Iterate.
        before: The iterate before.
        gradient: At `here`.
        loss: At `here`.
        best: Iterate of highest loss.
        best_gradient: There.
        best_loss: There.
        size: Step size (n, 1, 1, 1).
        rises: Steps since the last checkpoint that raised the loss.
        reviewed_loss: `best_loss` at the last checkpoint.
        halved: Whether the last checkpoint halved the step size.
        found: The misclassified iterate to return.
        broken: Whether there is one; of a randomised view, whether `best` errs in the mean of its draws.
    """

    x: Tensor
    low: Tensor
    high: Tensor
    y: Tensor
    target: Tensor
    here: Tensor
    before: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    size: Tensor
    rises: Tensor
    reviewed_loss: Tensor
    halved: Tensor
    found: Tensor
    broken: Tensor
    reviewed: int = 0

    def rows(self, keep: Tensor) -> _Run:
        """Some of the samples."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reviewed"}
        return replace(self, **{name: tensor[keep] for name, tensor in tensors.items()})

    def advance(self, model: View, threat: ThreatModel, loss: Loss, *, first: bool, leave: bool) -> None:
        """One step, and what the model says of where it leads."""
        there = self.project(self.here + self.size * direction(self.gradient, threat), threat)
        if not first:
            # here + α (there - here) + (1 - α) (here - before)
            there.mul_(MOMENTUM).add_(self.here, alpha=2 - 2 * MOMENTUM).sub_(self.before, alpha=1 - MOMENTUM)
            there = self.project(there, threat)
        self.before, self.here = self.here, there
        self.gradient, losses, logits = model.gradient(there, lambda z: loss(z, self.y, self.target))
        wrong = logits.argmax(1) != self.y
        if not model.randomized:
            self.found = torch.where(over_pixels(wrong & ~self.broken if leave else wrong), there, self.found)
            self.broken = self.broken | wrong
        self.rises += losses > self.loss
        self.loss = losses
        better = losses > self.best_loss
        if model.randomized:
            self.broken = torch.where(better, wrong, self.broken)
        self.best = torch.where(over_pixels(better), there, self.best)
        self.best_gradient = torch.where(over_pixels(better), self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, losses, self.best_loss)

    def review(self, step: int) -> None:
        """At a checkpoint: who made no progress halves the step size and goes on from the best iterate."""
        stuck = ~self.halved & (self.reviewed_loss >= self.best_loss)
        halve = stuck | (self.rises <= PROGRESS * (step - self.reviewed))
        self.size = torch.where(over_pixels(halve), self.size / 2, self.size)
        self.here = torch.where(over_pixels(halve), self.best, self.here)
        self.gradient = torch.where(over_pixels(halve), self.best_gradient, self.gradient)
        self.halved, self.reviewed_loss, self.reviewed = halve, self.best_loss, step
        self.rises = torch.zeros_like(self.rises)

    def end(self, by_loss: bool | int) -> Tensor:
        """What the run has come to: the images of highest loss, unless misclassified ones go before."""
        return self.best if by_loss else torch.where(over_pixels(self.broken), self.found, self.best)

    def project(self, there: Tensor, threat: ThreatModel) -> Tensor:
        """Back into ball and box; may write into its argument."""
        return there.clamp_(self.low, self.high) if threat.norm == "linf" else threat.project(there, self.x)


def _start(
    model: View, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, loss: Loss, target: Tensor
) -> _Run:
    linf, shape = threat.norm == "linf", x.shape[1:]
    noise = draws.uniform(*shape, low=-1.0, high=1.0) if linf else draws.normal(*shape)
    low, high = (x - threat.epsilon).clamp_(0, 1), (x + threat.epsilon).clamp_(0, 1)
    here = (x + noise * (threat.epsilon / threat.norms(noise)).view(-1, 1, 1, 1)).clamp_(0, 1)
    gradient, losses, logits = model.gradient(here, lambda z: loss(z, y, target))
    wrong = logits.argmax(1) != y
    return _Run(
        x=x, low=low, high=high, y=y, target=target, here=here, before=here,
        gradient=gradient, loss=losses, best=here, best_gradient=gradient, best_loss=losses,
        size=torch.full_like(x[:, :1, :1, :1], 2 * threat.epsilon),
        rises=torch.zeros_like(losses), reviewed_loss=losses,
        halved=torch.ones_like(wrong), found=here, broken=wrong,
    )  # fmt: skip
