"""PGD that lets go of a sample once the deployed defence errs on it.

What a sample is worth is decided then, so further steps would change no verdict; and in an audit of a weak
defence nearly all time would go into them. A randomised defence is never let go: it may err in one draw alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchbox.contract.ascent import Loss, direction
from benchbox.contract.view import Forward, View
from benchbox.domain import ThreatModel


class Climb(NamedTuple):
    """Where PGD ended.

    Attributes:
        x: (N, C, H, W) the first image on which the deployed defence erred; else the best one seen, by whether the
            attacked model erred and then by loss.
        seen: (N,) whether the attacked model ever erred.
        trace: (steps, N) losses; the last one is repeated once a sample is let go.
    """

    x: Tensor
    seen: Tensor
    trace: Tensor


def climb(
    view: View,
    x: Tensor,
    threat: ThreatModel,
    *,
    start: Tensor,
    steps: int,
    step_size: float,
    loss: Loss,
    deployed: Forward | None,
) -> Climb:
    """Projected gradient ascent, sample by sample until it succeeds.

    Args:
        view: The model to differentiate, with the labels and the draws; deterministic.
        x: (N, C, H, W) clean images.
        threat: The ball.
        start: (N, C, H, W) first iterate, inside the ball.
        steps: Number of steps.
        step_size: Length of a step in the norm of the ball.
        loss: (logits, y) -> per-sample losses, ascended.
        deployed: What decides whether a sample is let go; None if `view` is it already.
    """
    y, found = view.y, start.clone()
    here, wrong = start.clone(), torch.zeros_like(view.y, dtype=torch.bool)
    best = torch.full(y.shape, -torch.inf, device=x.device)
    trace = torch.zeros(steps, len(y), device=x.device)
    left = torch.arange(len(y), device=x.device)
    for step in range(steps + 1):
        part = view if len(left) == len(y) else view.rows(left)
        at, labels = here[left], y[left]
        slope, losses, logits = _asked(part, at, _of(loss, labels), ascend=step < steps)
        erred = logits.argmax(1) != labels
        better = (erred & ~wrong[left]) | ((erred == wrong[left]) & (losses > best[left]))
        found[left[better]], best[left[better]] = at[better], losses[better]
        wrong[left] |= erred
        trace[step:, left] = losses
        fallen = erred if deployed is None else _confirmed(deployed, part, at, erred)
        found[left[fallen]] = at[fallen]
        stays = ~fallen
        left = left[stays]
        if step == steps or not len(left):
            break
        here[left] = threat.project(at[stays] + step_size * direction(slope[stays], threat), x[left])
    return Climb(found, wrong, trace)


def _of(loss: Loss, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: loss(logits, labels)


def _asked(
    view: View, x: Tensor, loss: Callable[[Tensor], Tensor], *, ascend: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient, losses and logits; after the last step there is no need of a gradient."""
    if ascend:
        return view.gradient(x, loss)
    with torch.no_grad():
        logits = view(x)
        return torch.zeros_like(x), loss(logits), logits


def _confirmed(deployed: Forward, view: View, x: Tensor, erred: Tensor) -> Tensor:
    """(n,) whether the deployed defence errs where the stand-in did."""
    fallen = erred.clone()
    rows = erred.nonzero().flatten()
    if len(rows):
        with torch.no_grad():
            fallen[rows] = deployed(x[rows], view.draws.rows(rows)).argmax(1) != view.y[rows]
    return fallen
