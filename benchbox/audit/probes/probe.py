"""Runs every probe on a trained defence, the cheapest first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchbox.audit.checks import thresholds
from benchbox.audit.evidence import WHITE_BOX, Panel, Probes
from benchbox.audit.probes import behaviour, binarisation, gradients, random_search, search, unseen
from benchbox.audit.probes.history import here, history
from benchbox.audit.probes.measurements import Binarisation, Effort, Flags, Randomness
from benchbox.audit.probes.passes import RUNGS, UNBOUNDED
from benchbox.audit.probes.search import LOSSES, Found, Late, Target
from benchbox.contract import overheard
from benchbox.contract.view import Forward
from benchbox.domain import ThreatModel
from benchbox.draws import Draws
from benchbox.engine.isolation.stranger import Stranger
from benchbox.engine.judge import Judge
from benchbox.errors import DefenseError, RequestError

T = TypeVar("T")


class Plan:
    """How hard to try as time goes by; this one leaves nothing out."""

    def before(self, calls: str, effort: Effort, standing: float | None = None) -> Effort:
        """The effort from some calls on.

        Args:
            calls: Which come next.
            effort: Until now.
            standing: Share of the samples that withstand everything so far, once attacks were made.
        """
        return effort

    def is_over(self) -> bool:
        """Whether the time is up."""
        return False

    def note_late(self, field: str) -> None:
        """Hear that the time was up within the probe that a field of the effort stands for."""


def probe(
    judge: Judge,
    x: Tensor,
    y: Tensor,
    indices: Tensor,
    threat: ThreatModel,
    effort: Effort | None = None,
    *,
    seed: int = 0,
    held: tuple[Tensor, Tensor] | None = None,
    report: Callable[[str], None] = lambda what: None,
    plan: Plan | None = None,
) -> Probes:
    """Probe a trained defence.

    Args:
        judge: Of the defence, its parameters frozen; not asked about these images before.
        x: (N, C, H, W) float32 in [0, 1].
        y: (N,) int64.
        indices: (N,) int64, positions in the data set.
        threat: The ball.
        effort: How hard to try.
        seed: Of every draw.
        held: Images and classes that are in no test set, the training images say.
        report: Told what begins.
        plan: Says before each probe how hard to try from there on, and when the time is up; by default nothing
            is left out.
    """
    begin = time.perf_counter()
    effort = effort or Effort()
    with overheard.listening() as heard:
        found = _probe(judge, x, y, indices, threat, effort, seed, held, report, plan or Plan())
    defense = judge.defense
    heard = {*defense.heard()} if isinstance(defense, Stranger) else heard | overheard.written(type(defense))
    return replace(found, heard=frozenset(heard), seconds=time.perf_counter() - begin)


def _probe(
    judge: Judge,
    x: Tensor,
    y: Tensor,
    indices: Tensor,
    threat: ThreatModel,
    effort: Effort,
    seed: int,
    held: tuple[Tensor, Tensor] | None,
    report: Callable[[str], None],
    plan: Plan,
) -> Probes:
    target = Target(judge, x, y, Draws(indices.to(x.device), seed), threat, effort, is_over=plan.is_over)

    def begin(what: str, calls: str, standing: float | None = None) -> None:
        report(what)
        target.effort = plan.before(calls, target.effort, standing)

    def spared(field: str, do: Callable[[Target], T]) -> T:
        """What a probe finds; if the time is up before it ends, what it finds without any effort."""
        try:
            return do(replace(target, spared=True))
        except Late:
            plan.note_late(field)
            target.effort = replace(target.effort, **{field: 0})
            return do(target)

    begin("asking", "asking")
    # First of all, for it asks copies that have seen nothing yet.
    at_first = history(target)
    answers = behaviour.ask(target)
    answers = replace(answers, history=at_first.gaps if at_first else None, process_gap=here(target, at_first))
    target.steady = answers.steady
    correct = ~target.wrong(x, "clean")
    begin("gradients", "gradients")
    slopes = gradients.examine(target)
    begin("attacks inside the ball", "FGSM")
    found, strongest = _white_box(target, correct)
    runs = [one.run for one in found]
    if (other := search.transfer(target)) is not None:
        runs.append(other)
    panel = Panel("probes", indices.cpu().numpy(), correct, tuple(runs))
    standing = correct & ~panel.broken(*WHITE_BOX)
    share = float(standing.mean())
    begin("random points and score-based search", "random search", share)
    runs += [random_search.squares(target, standing), random_search.random_points(target, standing)]
    begin("more starts", "more starts", share)
    panel = Panel("probes", indices.cpu().numpy(), correct, tuple(runs))
    suspects, fell = spared("pursued", lambda target: _pursued(target, panel.suspects))
    lacking = _lacking(target.effort, len(y), judge.defense.randomized)
    panel = replace(panel, lacking=lacking, pursued=suspects).with_pursuit(fell)
    model = target.models()[strongest]
    begin("images that nobody has seen", "images that nobody has seen", share)
    elsewhere = spared("elsewhere", lambda target: unseen.examine(target, held))
    begin("other radii", "other radii", share)
    trace = next(f.trace for f in found if f.run.through == strongest and f.run.kind == "iterative").double()
    ladder, unbounded = spared("radii", lambda target: _other_radii(target, model, strongest))
    begin("twice the steps, twice the starts", "twice the steps and starts", share)
    subset, doubled, draws = spared("doubled", lambda target: _of_subset(target, model, strongest, correct))
    begin("planted adversarial examples", "planted examples", share)
    planted, why = spared("binarisation", lambda target: _binarisation(target, strongest, correct))
    report("asking once more")
    others = replace(target, x=unseen.moved(target, "at the end"))
    at_last = history(others)
    answers = replace(
        answers,
        later=behaviour.later(target, answers),
        late_history=at_last.gaps if at_last else None,
        late_process_gap=here(others, at_last),
    )
    return Probes(
        effort=target.effort,
        unseen=elsewhere,
        panel=panel,
        strongest=strongest,
        ladder=ladder,
        unbounded=unbounded,
        subset=subset,
        doubled=doubled,
        trace=trace.numpy(),
        behaviour=answers,
        gradients=slopes,
        randomness=draws,
        binarisation=planted,
        no_binarisation=why,
        labels=y.cpu().numpy(),
        seconds=0.0,
    )


def _pursued(target: Target, suspects: Flags) -> tuple[Flags, Flags]:
    """(N,) which samples PGD was tried on again with many more starts, and which of them it broke."""
    chosen = _first(suspects, target.effort.pursued)
    fell: Flags = np.zeros(len(chosen), bool)
    fell[chosen] = pursue(target.rows(torch.from_numpy(np.flatnonzero(chosen)).to(target.y.device)))
    return chosen, fell


def _other_radii(target: Target, model: Forward, through: str) -> tuple[dict[float, Flags], dict[float, Flags]]:
    """The ladder, and the radii at which nothing of an image is left."""
    if not target.effort.radii:
        return {}, {}
    unbounded = {radius: search.unbounded(target, model, through, radius) for radius in UNBOUNDED}
    return _ladder(target, model, through), unbounded


def _of_subset(
    target: Target, model: Forward, through: str, correct: Flags
) -> tuple[Flags, dict[str, Flags], Randomness | None]:
    """Some samples, twice the steps and starts on them, and what draws change there."""
    subset = _first(correct, target.effort.doubled)
    chosen = target.rows(torch.from_numpy(np.flatnonzero(subset)).to(target.y.device))
    doubled = _doubled(chosen, model, through, subset)
    if not (target.defense.randomized and len(chosen.y)):
        return subset, doubled, None
    return subset, doubled, gradients.randomness(target, model, through, chosen)


def _white_box(target: Target, correct: Flags) -> tuple[list[Found], str]:
    """FGSM and PGD through every model with both losses, and the model that broke most samples.

    A sample that PGD broke through a model is not attacked through it again: only the union counts.
    """
    found: list[Found] = []
    broken_through: dict[str, int] = {}
    for name, forward in target.models().items():
        for loss in LOSSES:
            label = f"FGSM, {loss}, {name}"
            found.append(search.gradient(target, forward, label, loss, through=name, one_step=True))
        left = correct.copy()
        for restart in range(target.effort.restarts):
            if restart and target.is_over():
                target.effort = replace(target.effort, restarts=restart)
                break
            for loss in LOSSES:
                label = f"PGD-{target.effort.steps}, {loss}, {name}, start {restart}"
                found.append(search.gradient(target, forward, label, loss, through=name, on=left))
                left &= ~found[-1].run.broken
        broken_through[name] = int((correct & ~left).sum())
    return found, max(broken_through, key=lambda name: broken_through[name])


def pursue(target: Target) -> Flags:
    """(N,) broken by PGD through any model, with many more starts, and towards each other class.

    An honest robust model has samples that few starts reach and a search by scores does; masked gradients do not
    get there however often they start.
    """
    flags: Flags = np.zeros(len(target.y), bool)
    for name, forward in target.models().items():
        flags = _both(
            target, forward, name, f"pursuit {name}", starts=range(int(thresholds.RESTARTS)), broken=flags
        )
        for offset in range(1, min(target.defense.images.classes, int(thresholds.TARGETS) + 1)):
            label, loss = f"pursuit {name} {offset}", f"target {offset}"
            flags = flags | search.gradient(target, forward, label, loss, through=name, on=~flags).run.broken
    return flags


def _ladder(target: Target, model: Forward, through: str) -> dict[float, Flags]:
    return {
        rung: _both(target, model, through, f"ladder {rung}", threat=target.threat.scaled(rung)) for rung in RUNGS
    }


def _both(
    target: Target,
    model: Forward,
    through: str,
    name: str,
    *,
    threat: ThreatModel | None = None,
    steps: int | None = None,
    starts: range = range(1),
    broken: Flags | None = None,
) -> Flags:
    """(N,) broken by PGD with either loss from any start; what is `broken` already is not attacked."""
    flags: Flags = np.zeros(len(target.y), bool) if broken is None else broken
    for start in starts:
        for loss in LOSSES:
            # The start's name leaves out the number of steps: more steps begin where fewer did.
            label = f"{name}, {loss}, {start}"
            run = search.gradient(
                target, model, label, loss, through=through, threat=threat, steps=steps, on=~flags
            ).run
            flags = flags | run.broken
    return flags


def _doubled(chosen: Target, model: Forward, through: str, subset: Flags) -> dict[str, Flags]:
    steps, restarts = chosen.effort.steps, chosen.effort.restarts
    if not len(chosen.y):
        return {}
    once = _both(chosen, model, through, "doubling", steps=steps, starts=range(restarts))
    more = range(restarts, 2 * restarts)
    found = {
        "once": once,
        "steps": _both(chosen, model, through, "doubling", steps=2 * steps, starts=range(restarts)),
        # The first half of twice the starts is the usual attack.
        "restarts": _both(chosen, model, through, "doubling", steps=steps, starts=more, broken=once),
    }
    spread: dict[str, Flags] = {name: np.zeros(len(subset), bool) for name in found}
    for name, flags in found.items():
        spread[name][subset] = flags
    return spread


def _binarisation(target: Target, strongest: str, correct: Flags) -> tuple[Binarisation | None, str]:
    if target.effort.binarisation == 0:
        return None, "left out"
    rows = np.flatnonzero(correct)
    if not len(rows):
        return None, "no clean image is classified correctly"
    try:
        return binarisation.test(target.rows(torch.from_numpy(rows).to(target.y.device)), strongest), ""
    except (RequestError, DefenseError, RuntimeError) as error:
        return None, " ".join(str(error).split())


def _first(flags: Flags, n: int) -> Flags:
    kept: Flags = np.zeros(len(flags), bool)
    kept[np.flatnonzero(flags)[:n]] = True
    return kept


def _lacking(effort: Effort, n: int, randomized: bool) -> dict[str, str]:
    """What the effort leaves open, by kind of run."""
    lacking = {}
    if effort.random_points < thresholds.RANDOM_POINTS:
        lacking["random"] = (
            f"only {effort.random_points} random points were tried, not {thresholds.RANDOM_POINTS:.0f}"
        )
    if effort.queries < thresholds.QUERIES:
        lacking["score-based"] = f"the search had only {effort.queries} queries, not {thresholds.QUERIES:.0f}"
    if effort.steps < thresholds.STEPS:
        lacking["iterative"] = f"PGD had only {effort.steps} steps, not {thresholds.STEPS:.0f}"
    elif randomized and effort.eot < thresholds.EOT_DRAWS:
        lacking["iterative"] = f"gradients are averaged over {effort.eot} draws, not {thresholds.EOT_DRAWS:.0f}"
    if n < thresholds.PROBED:
        lacking["few"] = f"only {n} images were probed, not {thresholds.PROBED:.0f}"
    if not effort.pursued:
        lacking["pursuit"] = "more starts were left out, which would tell masking from a weak attack"
    if n < 100:
        lacking["samples"] = f"only {n} samples were probed, not 100"
    return lacking
