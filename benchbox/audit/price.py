"""What an audit costs, and what it leaves out where that is too much.

Less effort is never a pass: the checks that ask for more say INCOMPLETE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from benchbox.audit.probes.probe import Passes, passes
from benchbox.contract import border
from benchbox.contract.defense import Defense
from benchbox.data.dataset import sample_list
from benchbox.draws import sample_draws
from benchbox.errors import DefenseError

if TYPE_CHECKING:
    from benchbox.audit.conduct import Ready

#: What is left out first, step by step: what checks need least for a verdict, and saves most.
STEPS: tuple[Mapping[str, int], ...] = (
    {"random_points": 1000},
    {"queries": 300, "random_points": 100},
    {"binarisation": 0},
    {"samples": 50},
    {"restarts": 1, "doubled": 10},
    {"samples": 20},
    {"steps": 40},
    {"samples": 10, "queries": 100, "random_points": 20},
    {"steps": 20, "samples": 5},
)
#: In words, in the order they are told.
WORDS = {
    "samples": "images",
    "steps": "steps",
    "restarts": "starts",
    "random_points": "random points",
    "queries": "queries",
    "doubled": "images with twice the steps",
    "binarisation": "images of the binarisation test",
}


@dataclass(frozen=True)
class Cost:
    """What the probes will take.

    Attributes:
        passes: Over one sample.
        least: Seconds, if every attack that should break a sample does so at once, by one timed pass.
        seconds: If every sample withstands everything inside the ball.
    """

    passes: Passes
    least: float
    seconds: float


@dataclass(frozen=True)
class Pace:
    """Seconds of a forward pass over a batch, and of a forward and a backward one; and the images in it."""

    forward: float
    both: float
    images: int

    def cost(self, ready: Ready) -> Cost:
        """Of an audit at this pace."""
        needed, batches = passes(ready.defense, ready.effort), len(ready.samples) / self.images
        alone = needed.forward * self.forward
        return Cost(
            needed,
            batches * (needed.weak * self.both + alone),
            batches * (needed.robust * self.both + alone + needed.standing * self.forward),
        )


def pace(ready: Ready) -> Pace:
    """Time both passes, on random images: the test images are met in the audit only."""
    spec, n = ready.dataset.spec, min(len(ready.samples), ready.effort.batch)
    x = sample_draws(n, 1, ready.device).uniform(*spec.shape)
    draws = sample_draws(n, 2, ready.device)
    both = forward = float("inf")
    with border.crossing(type(ready.defense), DefenseError):
        if not ready.defense.deployable:
            ready.defense.reveal(x, draws)
        for _ in range(4):  # the first one warms up; others may meet a busy machine
            forward = min(forward, _seconds(ready.device, lambda: ready.defense(x, draws)))
            both = min(both, _seconds(ready.device, lambda: _backward(ready.defense, x, draws)))
    return Pace(forward, both, n)


def within(ready: Ready, seconds: float, pace: Pace) -> tuple[Ready, dict[str, tuple[int, int]]]:
    """An audit that takes no longer than that, as far as leaving things out helps.

    Args:
        ready: As it was asked for.
        seconds: In the worst case.
        pace: Of its defence.

    Returns:
        The audit, and what was left out: what was asked for and what is done, by the field of its effort.
    """
    asked = ready.effort
    for step in STEPS:
        if pace.cost(ready).seconds <= seconds:
            break
        less = {name: min(value, getattr(ready.effort, name)) for name, value in step.items()}
        effort = replace(ready.effort, **less)
        ready = replace(ready, effort=effort, samples=sample_list(ready.dataset, effort.samples))
    done = {name: (getattr(asked, name), getattr(ready.effort, name)) for name in WORDS}
    return ready, {name: pair for name, pair in done.items() if pair[0] != pair[1]}


def said(less: Mapping[str, tuple[int, int]]) -> str:
    """What was left out, in words."""
    return ", ".join(f"{done} of {asked} {WORDS[name]}" for name, (asked, done) in less.items())


def _seconds(where: torch.device, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        work()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter() - start


def _backward(defense: Defense, x: torch.Tensor, draws: object) -> None:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        logits = defense(leaf, draws)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
