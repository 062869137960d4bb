"""What an audit costs, and what it leaves out where that is too much.

Less effort is never a pass: the checks that ask for more say INCOMPLETE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from benchbox.analysis.intervals import clopper_pearson
from benchbox.audit.probes.passes import Passes, passes
from benchbox.audit.probes.search import Target, gradient
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
#: What it plans for of the processors that it was seen to get: whoever else is there may want more of them.
RESERVE = 0.8
#: Seconds of a processor that a second here is worth at least, however loaded the machine was for a moment.
LEAST = 0.05
#: What is left out has to save this share of the seconds.
SAVES = 0.15
#: Training images that are attacked to see how many will stand, and in how many steps.
PILOTS, PILOT_STEPS = 20, 10
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
        seconds: If as many samples withstand everything inside the ball as may.
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
        share: Seconds of a processor that a second here was worth: below 1 where others compute, too.
        standing: Share of the images that may withstand everything; the others fall at once.
    """

    forward: tuple[float, float]
    both: tuple[float, float]
    images: int
    share: float = 1.0
    standing: float = 1.0

    def cost(self, ready: Ready) -> Cost:
        """Of an audit at this pace."""
        needed = passes(ready.defense, ready.effort)
        most = sum(
            calls.gradients * self._of(self.both, calls.images)
            + calls.forwards * self._of(self.forward, calls.images)
            for calls in needed.most
        )
        least = min(needed.least * self._of(self.both, len(ready.samples)), most)
        return Cost(needed, least, least + self.standing * (most - least))

    def _of(self, seconds: tuple[float, float], images: int) -> float:
        """A call about so many images, in batches: what it takes by itself, and what each image adds."""
        one, whole = seconds
        each = max(whole - one, 0.0) / max(self.images - 1, 1)
        batches = -(-images // self.images)
        return batches * max(one - each, 0.0) + images * max(each, whole / self.images / 10)


def pace(ready: Ready) -> Pace:
    """Time both passes, on random images: the test images are met in the audit only.

    On a CPU the seconds are those of a processor that all threads of this process took: who else computes there
    changes not the pace, but what a second is worth.
    """
    n = min(len(ready.samples), ready.effort.batch)
    here, spent = time.perf_counter(), _clock(ready)()
    with border.crossing(type(ready.defense), DefenseError):
        forward, both = zip(*(_timed(ready, images) for images in (1, n)), strict=True)
        standing = _standing(ready)
    share = (_clock(ready)() - spent) / max(time.perf_counter() - here, 1e-9)
    return Pace(forward, both, n, max(share, LEAST), standing)


def _standing(ready: Ready) -> float:
    """Share of some training images, at most, that withstand a short attack on the deployed defence.

    An undefended network costs a hundredth of a robust one. Where gradients lead nowhere all of them stand: then
    everything is planned for.
    """
    # The last ones: the probes meet the first.
    x, y = ready.dataset.train.batch(slice(max(len(ready.dataset.train) - PILOTS, 0), None))
    if not len(x):
        return 1.0
    x, y = x.to(ready.device), y.to(ready.device)
    effort = replace(ready.effort, steps=PILOT_STEPS, eot=1, scoring_draws=1)
    if not ready.defense.deployable:
        return 1.0
    target = Target(ready.judge, x, y, sample_draws(len(x), 3, ready.device), ready.threat, effort)
    broken = gradient(target, ready.judge.through(None), "pilot", "margin", through="deployed").run.broken
    # Of so few, the upper end of an interval.
    return clopper_pearson(int((~broken).sum()), len(broken)).high


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
        seconds: That it may take, in the worst case, on a machine as loaded as when the pace was measured.
        pace: Of its defence.

    Returns:
        The audit, and what was left out: what was asked for and what is done, by the field of its effort.
    """
    asked, cost = ready.effort, pace.cost(ready).seconds
    for step in STEPS:
        if cost <= seconds * pace.share * RESERVE:
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
    clock = _clock(ready)
    start = clock()
    work()
    if ready.device.type == "cuda":
        torch.cuda.synchronize(ready.device)
    return clock() - start


def _clock(ready: Ready) -> Callable[[], float]:
    """Seconds of a processor; of those on the wall where something else computes."""
    # What an isolated defence computes is in no clock of this process.
    here = ready.device.type == "cpu" and not isinstance(ready.defense, Stranger)
    return time.process_time if here else time.perf_counter
