"""What an audit costs, and what it leaves out where that is too much.

Less effort is never a pass: the checks that ask for more say INCOMPLETE, and so do those that are left out as a
whole, with what they would have taken.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from benchbox.analysis.intervals import clopper_pearson
from benchbox.audit.probes.measurements import Effort
from benchbox.audit.probes.passes import SOON, Calls, Passes, passes
from benchbox.audit.probes.search import Target, gradient
from benchbox.contract import border
from benchbox.data.dataset import sample_list
from benchbox.draws import sample_draws
from benchbox.engine.budget import duration
from benchbox.engine.isolation.stranger import Stranger
from benchbox.errors import DefenseError
from benchbox.training.layout import answer

if TYPE_CHECKING:
    from benchbox.audit.conduct import Ready

#: What is left out first, step by step: what checks need least for a verdict. The last images go last: of fewer
#: than twenty no probe acquits any more, not even one that merely asks.
STEPS: tuple[Mapping[str, int], ...] = (
    {"random_points": 1000},
    {"queries": 300, "random_points": 100},
    {"binarisation": 0},
    {"samples": 50},
    {"restarts": 1, "doubled": 20, "elsewhere": 20},
    {"samples": 20},
    {"steps": 40},
    {"eot": 10},
    {"doubled": 10, "elsewhere": 10, "pursued": 10, "queries": 100, "random_points": 20},
    {"steps": 20},
    {"doubled": 0, "radii": 0},
    {"eot": 5},
    {"elsewhere": 0, "pursued": 0},
    {"steps": 10},
    {"eot": 1},
    {"queries": 20, "random_points": 5, "directions": 2, "noise": 10},
    {"samples": 10},
    {"samples": 5},
    {"samples": 2},
    {"samples": 1},
)
#: The calls of a probe that can be left out as a whole, by the field of the effort that says so.
WHOLE: Mapping[str, tuple[str, ...]] = {
    "binarisation": ("planted examples",),
    "doubled": ("twice the steps and starts", "draws"),
    "radii": ("other radii",),
    "elsewhere": ("images that nobody has seen",),
    "pursued": ("more starts", "stored images"),
}
#: What it plans for of the processors that it was seen to get: whoever else is there may want more of them.
RESERVE = 0.8
#: Seconds of a processor that a second here is worth at least, however loaded the machine was for a moment.
LEAST = 0.05
#: What is left out has to save this share of the seconds.
SAVES = 0.15
#: Training images that are attacked to see how many will stand, and in how many steps.
PILOTS, PILOT_STEPS = 20, 10
#: How often a pass is timed, and how often at least; the mean counts: what interrupts some will interrupt others.
REPEATS, FEWEST = 5, 3
#: Share of the seconds that each of these may take: what is dear is timed once, and about a few images.
TRIALS = 0.04
#: In words, in the order they are told.
WORDS = {
    "samples": "images",
    "steps": "steps",
    "restarts": "starts",
    "random_points": "random points",
    "queries": "queries",
    "eot": "draws a gradient",
    "doubled": "images with twice the steps",
    "elsewhere": "images from elsewhere",
    "radii": "other radii",
    "pursued": "images with more starts",
    "binarisation": "images of the binarisation test",
    "directions": "directions of finite differences",
    "noise": "draws of noise",
}


@dataclass(frozen=True)
class Cost:
    """What the probes will take.

    Attributes:
        passes: The calls they make.
        least: Seconds, if every attack that should break a sample does so at once.
        seconds: If as many samples withstand everything as may.
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
        seconds = self.expected(needed.most, ready.effort.steps, self.standing)
        least = needed.least * self._of(self.both, ready.effort.samples)
        return Cost(needed, min(least, seconds), seconds)

    def expected(self, calls: Sequence[Calls], steps: int, standing: float) -> float:
        """Seconds that some calls take if this share of the samples stands; the others fall within a few steps."""
        whole = [one for one in calls if one.regardless]
        falling = [one for one in calls if not one.regardless]
        stand = [
            replace(one, images=math.ceil(one.images * standing)) for one in falling if one.images * standing > 0.5
        ]
        soon = min(SOON / steps, 1.0)
        return self.seconds(whole) + soon * self.seconds(falling) + (1 - soon) * self.seconds(stand)

    def seconds(self, calls: Sequence[Calls]) -> float:
        """That some calls take."""
        return sum(
            one.gradients * self._of(self.both, one.images) + one.forwards * self._of(self.forward, one.images)
            for one in calls
        )

    def _of(self, seconds: tuple[float, float], images: int) -> float:
        """A call about so many images, in batches: what it takes by itself, and what each image adds."""
        one, whole = seconds
        each = max(whole - one, 0.0) / max(self.images - 1, 1)
        batches = -(-images // self.images)
        return batches * max(one - each, 0.0) + images * max(each, whole / self.images / 10)


def pace(ready: Ready, seconds: float = math.inf) -> Pace:
    """Time both passes, on random images: the test images are met in the audit only.

    On a CPU the seconds are those of a processor that all threads of this process took: who else computes there
    changes not the pace, but what a second is worth.

    Args:
        ready: The audit.
        seconds: That it may take; a few hundredths of them go into this, but for a pass about an image or two.
    """
    here, spent = time.perf_counter(), _clock(ready)()
    with ready.judge.layout.on_threads(), border.crossing(type(ready.defense), DefenseError):
        alone = _timed(ready, 1, seconds * TRIALS)
        affordable = max(int(min(seconds * TRIALS / max(sum(alone), 1e-9), ready.effort.batch)), 2)
        n = min(len(ready.samples), ready.effort.batch, affordable)
        forward, both = zip(alone, _timed(ready, n, seconds * TRIALS), strict=True)
        pilots = PILOTS * PILOT_STEPS * both[1] / n
        standing = _standing(ready) if pilots <= 2 * seconds * TRIALS else 1.0
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


def _timed(ready: Ready, images: int, seconds: float) -> tuple[float, float]:
    """Seconds of a forward pass about so many images, and of a forward and a backward one.

    Args:
        ready: The audit.
        images: In each call.
        seconds: After which no call is repeated.
    """
    x = sample_draws(images, 1, ready.device).uniform(*ready.dataset.spec.shape)
    draws = sample_draws(images, 2, ready.device)
    if not ready.defense.deployable:
        ready.defense.reveal(x, draws)
    begun = time.perf_counter()
    forward: list[float] = []
    both: list[float] = []
    # The first one warms up. On a loaded machine two more are made all the same, if they are cheap by themselves.
    while (
        not both
        or (len(both) < REPEATS and time.perf_counter() - begun < seconds)
        or (len(both) < FEWEST and sum(forward) + sum(both) < seconds)
    ):
        forward.append(_seconds(ready, lambda: ready.judge.without_gradient(x, draws)))
        both.append(_seconds(ready, lambda: answer(ready.judge.ask, x, draws)))
    return statistics.fmean(forward[1:] or forward), statistics.fmean(both[1:] or both)


def within(ready: Ready, seconds: float, pace: Pace) -> tuple[Ready, dict[str, tuple[int, int]]]:
    """An audit that takes no longer than that, as far as leaving things out helps.

    Args:
        ready: As it was asked for.
        seconds: That it may take, in the worst case, on a machine as loaded as when the pace was measured.
        pace: Of its defence.

    Returns:
        The audit, and what was left out: what was asked for and what is done, by the field of its effort.
    """
    whole = ready

    def cost(effort: Effort) -> float:
        return pace.cost(replace(whole, effort=effort)).seconds

    effort = cut(whole.effort, cost, seconds * pace.share * RESERVE)
    less = lessened(whole.effort, effort)
    if "samples" in less:
        ready = replace(ready, samples=sample_list(ready.dataset, effort.samples, seed=ready.samples.seed))
    left_out = dict(_left_out(whole, less, pace))
    return replace(ready, effort=effort, left_out=left_out), less


def lessened(asked: Effort, done: Effort) -> dict[str, tuple[int, int]]:
    """What was asked for and what is done, where it is less, by the field of the effort."""
    pairs = {name: (getattr(asked, name), getattr(done, name)) for name in WORDS}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def cut(
    effort: Effort, cost: Callable[[Effort], float], limit: float, free: Callable[[str], bool] = lambda field: True
) -> Effort:
    """The effort that costs no more than a limit, as far as leaving things out helps.

    A small network takes as long for twenty images as for a hundred. What saves little now may be most of what is
    left later on, so each time it is looked for from the first step on.

    Args:
        effort: As it was asked for.
        cost: Of an effort, in the unit of the limit.
        limit: Not to be passed.
        free: Whether a field may still be changed.
    """
    asked, now = effort, cost(effort)
    while now > limit:
        for step in STEPS:
            less = {name: min(value, getattr(effort, name)) for name, value in step.items() if free(name)}
            fewer = replace(effort, **less)
            if (left := cost(fewer)) <= (1 - SAVES) * now:
                effort, now = fewer, left
                break
        else:
            break
    while more := next(_dearer(effort, asked, cost, limit), None):
        effort = more
    return effort


def _dearer(effort: Effort, asked: Effort, cost: Callable[[Effort], float], limit: float) -> Iterator[Effort]:
    """Efforts that have something back and still fit: what was left out last may have made room for it.

    A probe that was left out as a whole comes before more effort of another; images do not come back.
    """
    fields = dict.fromkeys(name for step in reversed(STEPS) for name in step if name != "samples")
    for name in sorted(fields, key=lambda name: getattr(effort, name) > 0):
        levels = {getattr(asked, name), *(step[name] for step in STEPS if name in step)}
        now, most = getattr(effort, name), getattr(asked, name)
        if higher := min((level for level in levels if now < level <= most), default=0):
            more = replace(effort, **{name: higher})
            if cost(more) <= limit:
                yield more


def _left_out(whole: Ready, less: Mapping[str, tuple[int, int]], pace: Pace) -> Iterator[tuple[str, str]]:
    """By the field of the effort, what each probe that is left out as a whole would have taken."""
    needed = passes(whole.defense, whole.effort).most
    for name, probes in WHOLE.items():
        if name in less and not less[name][1]:
            seconds = pace.standing * pace.seconds([calls for calls in needed if calls.what in probes])
            wanted = duration(seconds / pace.share)
            yield name, f"left out: it would take {wanted} here; --whole has it, or a longer --budget"


def said(less: Mapping[str, tuple[int, int]]) -> str:
    """What was left out, in words."""
    return ", ".join(f"{done or 'none'} of {asked} {WORDS[name]}" for name, (asked, done) in less.items())


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
