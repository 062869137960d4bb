"""Does a defence answer an image by what it was asked before? A memory of first answers keeps 0 % at 97."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchbox.audit.probes.forks import forked, possible
from benchbox.audit.probes.search import Target
from benchbox.contract.ascent import cross_entropy
from benchbox.contract.defense import Defense
from benchbox.engine.isolation.stranger import Stranger
from benchbox.engine.judge import Judge
from benchbox.errors import DefenseError
from benchbox.training.layout import Layout

#: What is done with a defence that is left as if nobody had asked it.
Asking = Callable[[Judge], Mapping[str, Tensor]]
Apart = Callable[[Asking], Mapping[str, Tensor] | None]


@dataclass(frozen=True)
class History:
    """What a defence said as if nobody had asked it before.

    Attributes:
        gaps: (N,) how much the logits of an image hang on what was asked before it.
        asked: The images and others in the balls of them, by name.
        said: Logits about these, the images first.
    """

    gaps: NDArray[np.float64]
    asked: Mapping[str, Tensor]
    said: Mapping[str, Tensor]


def history(target: Target) -> History | None:
    """What is answered, apart, in two orders; None if that cannot be had.

    Twice the defence is asked, each time as it is now: about the images and then about another one in the ball of
    each, and the other way round. A defence that remembers its first answer gives it again.
    """
    apart = _apart(target)
    if apart is None:
        return None
    slopes = apart(lambda judge: {"slope": _slope(target, judge)})
    far = _far(target, slopes["slope"] if slopes else torch.zeros_like(target.x))
    first = apart(lambda judge: _in_turn(target, judge, {"far": far, "x": target.x}))
    second = apart(lambda judge: _in_turn(target, judge, {"x": target.x, "far": far}))
    if first is None or second is None:
        return None
    gaps: NDArray[np.float64] = torch.maximum(
        *(change(first[name], second[name]) for name in ("x", "far"))
    ).numpy()
    return History(gaps, {"x": target.x, "far": far}, second)


def here(target: Target, apart: History | None) -> NDArray[np.float64] | None:
    """(N,) how much the logits of the same images are others in this process, which has met them; None likewise.

    Who knows a fork of the process, and hides its memory there, has it here.
    """
    if apart is None:
        return None
    with _on_one_thread(target.defense):
        said = _in_turn(target, target.judge, apart.asked)
    gaps: NDArray[np.float64] = torch.maximum(
        *(change(apart.said[name], said[name]) for name in ("x", "far"))
    ).numpy()
    return gaps


def change(first: Tensor, second: Tensor) -> Tensor:
    """(N,) largest difference of a logit, over the largest logit."""
    found: Tensor = ((first - second).abs().amax(1) / first.abs().amax().clamp_min(1.0)).double()
    return found


def _apart(target: Target) -> Apart | None:
    """In forks of its process or, where that cannot be, on copies of the defence; None if there are none."""
    judge, defense = target.judge, target.defense
    if isinstance(defense, Stranger) and defense.facts["forks"]:
        return lambda ask: _branched(defense, judge, ask)
    if not isinstance(defense, Stranger) and possible(target.x.device):
        return lambda ask: forked(lambda: ask(judge))
    try:
        copy.deepcopy(target.defense)
    except Exception:  # whatever an object of others raises when it is to be copied
        return None
    return lambda ask: ask(Judge(copy.deepcopy(target.defense), judge.layout, judge.secret))


def _branched(defense: Stranger, judge: Judge, ask: Asking) -> Mapping[str, Tensor] | None:
    """What it says in a fork of its own process; None if that one failed."""
    try:
        branch = defense.branched()
        return None if branch is None else ask(Judge(branch, judge.layout, judge.secret))
    except (DefenseError, RuntimeError):
        return None


@contextlib.contextmanager
def _on_one_thread(defense: Defense) -> Iterator[None]:
    """As in a fork: other threads round otherwise."""
    before = defense.set_threads(1) if isinstance(defense, Stranger) else 1
    with Layout(threads=1).on_threads():
        yield
    if isinstance(defense, Stranger):
        defense.set_threads(before)


def _slope(target: Target, judge: Judge) -> Tensor:
    """(N, C, H, W) gradient of the loss, 0 where autograd refuses."""
    x = target.x.clone().requires_grad_()
    loss = cross_entropy(judge.ask(x, target.draws.at("audit", "ask")), target.y).sum()
    return torch.autograd.grad(loss, x)[0].cpu() if loss.requires_grad else torch.zeros_like(x).detach()


def _far(target: Target, slope: Tensor) -> Tensor:
    """The far end of each ball: a step up the gradient, which changes most classes, or in any direction."""
    anywhere = target.draws.at("audit", "far").normal(*target.x.shape[1:]).sign()
    sign = slope.to(target.x.device).nan_to_num().sign()
    climbs = (torch.arange(len(sign), device=sign.device) % 2 == 0).view(-1, 1, 1, 1) & (sign != 0)
    return target.threat.project(target.x + target.threat.epsilon * torch.where(climbs, sign, anywhere), target.x)


def _in_turn(target: Target, judge: Judge, images: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Logits of some images, then of others."""
    draws = target.draws.at("audit", "ask")
    with torch.no_grad():
        return {name: judge.ask(x, draws).cpu() for name, x in images.items()}
