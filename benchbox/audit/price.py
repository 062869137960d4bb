"""What an audit costs, and what it leaves out where that is too much.

Less effort is never a pass: the checks that ask for more say INCOMPLETE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from benchbox.audit.probes.passes import Passes, passes
from benchbox.contract import border
from benchbox.data.dataset import sample_list
from benchbox.draws import sample_draws
from benchbox.engine.isolation.stranger import Stranger
from benchbox.errors import DefenseError
from benchbox.training.layout import answer

if TYPE_CHECKING:
    from benchbox.audit.conduct import Ready

#: What is left out first, step by step: what checks need least for a verdict.
STEPS: tuple[Mapping[str, int], ...] = (
    {"random_points": 1000},
    {"queries": 300, "random_points": 100},
    {"binarisation": 0},
    {"samples": 50},
    {"restarts": 1, "doubled": 20},
    {"samples": 20},
    {"steps": 40},
    {"samples": 10, "doubled": 10, "queries": 100, "random_points": 20},
    {"steps": 20},
    {"samples": 5},
)
#: Of the seconds an audit may take, what it plans for on one processor; the rest is for whoever else is there.
SHARE = 0.5
#: What is left out has to save this share of the seconds.
SAVES = 0.15
#: How often a pass is timed; the median counts.
REPEATS = 5
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
        passes: The calls they make.
        least: Seconds, if every attack that should break a sample does so at once.
        seconds: If every sample withstands everything inside the ball.
    """

    passes: Passes
    least: float
    seconds: float


@dataclass(frozen=True)
class Pace:
    """What a pass takes, in seconds of one processor: of one image, and of a whole batch.

    Attributes:
        forward: Of a forward pass about one image, and about a batch.
        both: Of a forward and a backward one, likewise.
        images: In the batch.
    """

    forward: tuple[float, float]
    both: tuple[float, float]
    images: int

    def cost(self, ready: Ready) -> Cost:
        """Of an audit at this pace."""
        needed = passes(ready.defense, ready.effort)
        most = sum(
            calls.gradients * self._of(self.both, calls.images)
            + calls.forwards * self._of(self.forward, calls.images)
            for calls in needed.most
        )
        least = needed.least * self._of(self.both, len(ready.samples))
        return Cost(needed, min(least, most), most)

    def _of(self, seconds: tuple[float, float], images: int) -> float:
        """A call about so many images, in batches: what it takes by itself, and what each image adds."""
        one, whole = seconds
        each = max(whole - one, 0.0) / max(self.images - 1, 1)
        batches = -(-images // self.images)
        return batches * max(one - each, 0.0) + images * max(each, whole / self.images / 10)


def pace(ready: Ready) -> Pace:
    """Time both passes, on random images: the test images are met in the audit only.

    On a CPU the seconds are those of a processor that all threads of this process took: who else computes there
    changes neither the pace nor what is left out.
    """
    n = min(len(ready.samples), ready.effort.batch)
    with border.crossing(type(ready.defense), DefenseError):
        forward, both = zip(*(_timed(ready, images) for images in (1, n)), strict=True)
    return Pace(forward, both, n)


def _timed(ready: Ready, images: int) -> tuple[float, float]:
    """Seconds of a forward pass about so many images, and of a forward and a backward one."""
    x = sample_draws(images, 1, ready.device).uniform(*ready.dataset.spec.shape)
    draws = sample_draws(images, 2, ready.device)
    if not ready.defense.deployable:
        ready.defense.reveal(x, draws)
    forward, both = [], []
    for _ in range(REPEATS):  # the first one warms up
        forward.append(_seconds(ready, lambda: ready.judge.without_gradient(x, draws)))
        both.append(_seconds(ready, lambda: answer(ready.judge.ask, x, draws)))
    return sorted(forward)[REPEATS // 2], sorted(both)[REPEATS // 2]


def within(ready: Ready, seconds: float, pace: Pace) -> tuple[Ready, dict[str, tuple[int, int]]]:
    """An audit that takes no longer than that, as far as leaving things out helps.

    Args:
        ready: As it was asked for.
        seconds: That it may take, in the worst case and on a machine whose half is somebody else's.
        pace: Of its defence.

    Returns:
        The audit, and what was left out: what was asked for and what is done, by the field of its effort.
    """
    asked, cost = ready.effort, pace.cost(ready).seconds
    for step in STEPS:
        if cost <= seconds * SHARE:
            break
        less = {name: min(value, getattr(ready.effort, name)) for name, value in step.items()}
        effort = replace(ready.effort, **less)
        fewer = replace(
            ready, effort=effort, samples=sample_list(ready.dataset, effort.samples, seed=ready.samples.seed)
        )
        # A small network takes as long for twenty images as for a hundred: nothing is given up for nothing.
        if (left := pace.cost(fewer).seconds) <= (1 - SAVES) * cost:
            ready, cost = fewer, left
    done = {name: (getattr(asked, name), getattr(ready.effort, name)) for name in WORDS}
    return ready, {name: pair for name, pair in done.items() if pair[0] != pair[1]}


def said(less: Mapping[str, tuple[int, int]]) -> str:
    """What was left out, in words."""
    return ", ".join(f"{done} of {asked} {WORDS[name]}" for name, (asked, done) in less.items())


def _seconds(ready: Ready, work: Callable[[], object]) -> float:
    # What an isolated defence computes is in no clock of this process.
    here = ready.device.type == "cpu" and not isinstance(ready.defense, Stranger)
    clock = time.process_time if here else time.perf_counter
    start = clock()
    work()
    if ready.device.type == "cuda":
        torch.cuda.synchronize(ready.device)
    return clock() - start
