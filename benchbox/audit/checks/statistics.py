"""D: do the numbers carry what is claimed? From the store alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchbox.analysis import intervals, pairs
from benchbox.analysis.background import Background
from benchbox.analysis.compare import compare
from benchbox.analysis.comparison import Pair
from benchbox.audit.checks import premises
from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import Case, Stored
from benchbox.audit.verdict import Judgement, check, fail, incomplete, passed, warn
from benchbox.domain import NULL_ATTACK, Access, Evidence
from benchbox.errors import RequestError


@check("D1", "sample size", on=premises.stored)
def size(case: Case) -> Judgement:
    """Of the accuracy under the strongest single attack.

    Needs: n and the worst case
    Formula: half-width of the Clopper–Pearson interval
    Threshold: > 1 point: WARN, the rank is a group's (≈); > 3 points: INCOMPLETE
    Finding: too few samples for a place of its own
    Source: [P]
    """
    cells = case.stored.finished
    n = len(cells[0].outcome)
    robust = min(float(c.outcome.robust.mean()) for c in cells)
    interval = intervals.clopper_pearson(round(robust * n), n)
    half = (interval.high - interval.low) / 2
    said = f"± {100 * half:.1f} points on {n} samples"
    if half > limit.HALF_WIDTH_FAIL:
        return incomplete(said, half=half, n=n)
    return warn(said, half=half, n=n) if half > limit.HALF_WIDTH_WARN else passed(said, half=half, n=n)


@check("D2", "claims about two defences")
def claim(case: Case) -> Judgement | None:
    """Over the worst case that each pair has in common, as `benchbox compare` does; Holm over all pairs.

    Needs: flags of the other defences in the store on the same samples
    Formula: exact McNemar on the common worst case, Holm's correction over the defences
    Threshold: p ≥ 0.05 for any: WARN, same rank
    Finding: not significantly better or worse than another defence
    Source: Holm 1979; McNemar 1947
    """
    compared = dict(_pairs(case.stored))
    if not compared:
        return incomplete("no other defence has finished one of these attacks on these samples")
    adjusted = dict(zip(compared, pairs.holm([pair.p for pair in compared.values()]), strict=True))
    said = {
        name: f"{name} {100 * pair.difference:+.1f} points [{100 * pair.interval.low:+.1f}, "
        f"{100 * pair.interval.high:+.1f}] (p = {adjusted[name]:.2g})"
        for name, pair in compared.items()
    }
    alike = [text for name, text in said.items() if adjusted[name] >= limit.SIGNIFICANT]
    if alike:
        return warn(f"this − the other: {', '.join(alike)}", alike=len(alike), compared=len(compared))
    return passed(f"differs from every other: {', '.join(said.values())}", alike=0, compared=len(compared))


def _pairs(stored: Stored) -> Iterator[tuple[str, Pair]]:
    """By the other defence's name, the comparison over the worst case both were put to."""
    others: dict[str, list[Evidence]] = {}
    for evidence in stored.comparable(stored.others):
        others.setdefault(evidence.cell.artifact, []).append(evidence)
    names = [cells[0].cell.defense.name for cells in others.values()]
    known = Background(purifiers=stored.purifiers)
    for artifact, cells in others.items():
        name = cells[0].cell.defense.name
        both = [*stored.finished, *cells]
        try:
            (found,) = compare(both, stored.subject.artifact, artifact, known=known)
        except RequestError:  # the two have finished no attack in common
            continue
        label = name if names.count(name) == 1 else f"{name} ({artifact[:8]})"
        yield from ((label, pair) for pair in found.pairs if pair.scope == "common worst case")


@check("D4", "attack seeds")
def seeds(case: Case) -> Judgement | None:
    """Cells that differ in nothing else.

    Needs: the same attack with at least three seeds
    Formula: range of its accuracy over the seeds
    Threshold: > 1 point: WARN; fewer seeds: INCOMPLETE
    Finding: the number depends on the attack's seed
    Source: [P], after Madry's leaderboards, where restarts alone are worth 2.9 points
    """
    groups: dict[str, dict[int, float]] = {}
    for evidence in case.stored.finished:
        cell = evidence.cell
        key = f"{cell.attack} {cell.access} {cell.view} {cell.eot}"
        groups.setdefault(key, {})[cell.attack_seed] = float(evidence.outcome.robust.mean())
    repeated = [by_seed for by_seed in groups.values() if len(by_seed) >= limit.SEEDS]
    if not repeated:
        return incomplete(f"no attack was run with {int(limit.SEEDS)} seeds; use --attack-seed")
    spread = max(max(by_seed.values()) - min(by_seed.values()) for by_seed in repeated)
    said = f"{100 * spread:.1f} points over the seeds of {len(repeated)} attacks"
    return warn(said, spread=spread) if spread > limit.SEED_RANGE else passed(said, spread=spread)


@check("D5", "scoring of a randomised defence", of=premises.randomized, on=premises.stored)
def scoring(case: Case) -> Judgement:
    """Does not apply to a deterministic defence.

    Needs: predictions in R fresh draws
    Formula: R; from them the expected accuracy, the majority vote and the worst of R
    Threshold: R < 10: INCOMPLETE
    Finding: too few scoring draws
    Source: [P], after ADP, where the statistic moves the number by 17 to 36 points (Croce et al. 2022)
    """
    draws = min(c.cell.scoring_draws for c in case.stored.finished)
    return (
        passed(f"{draws} draws", draws=draws)
        if draws >= limit.SCORING_DRAWS
        else incomplete(f"{draws} draws", draws=draws)
    )


@check("D6", "selection and scoring apart", of=premises.randomized, on=premises.stored)
def apart(case: Case) -> Judgement:
    """Attack and scoring draw from streams of different names; the worst case needs two draws to keep apart.

    Needs: draws by which the worst attack is chosen and scored
    Formula: disjoint
    Threshold: overlap: FAIL
    Finding: the worst attack is chosen by the draws that score it
    Source: [P], after DiffBreak's warning
    """
    draws = min(c.cell.scoring_draws for c in case.stored.finished)
    said = f"{draws} scoring draws"
    return (
        passed(f"{said}, chosen on half of them and scored on the others")
        if draws > 1
        else fail(said, draws=draws)
    )


@check("D7", "cost")
def cost(case: Case) -> Judgement | None:
    """Counted by the view, whatever the attack says of itself.

    Needs: pass counters
    Formula: forward and backward passes a sample
    Threshold: missing: INCOMPLETE
    Finding: nobody counted what the attacks cost
    Source: [P], after AttackBench
    """
    counted = [c for c in case.stored.finished if c.cell.access is not Access.IMPORTED]
    cells = [c for c in counted if c.cell.attack.name != NULL_ATTACK]
    if not cells:
        return incomplete(premises.NOTHING_STORED)
    silent = [c.cell.attack.name for c in cells if not c.outcome.forwards.any()]
    if silent:
        return incomplete(f"no pass was counted for {', '.join(sorted(set(silent)))}")
    total = sum(float(np.mean(c.outcome.forwards + c.outcome.backwards)) for c in cells)
    return passed(f"{total:.0f} passes a sample over {len(cells)} cells", passes=total)


@check("D8", "which samples", on=premises.stored)
def subset(case: Case) -> Judgement:
    """The list is part of every cell's key.

    Needs: sample list
    Formula: declared, with the digest of its images
    Threshold: missing: INCOMPLETE
    Finding: nobody knows which samples the number is about
    Source: [P]
    """
    samples = case.stored.finished[0].cell.samples
    if not samples.digest:
        return incomplete("the sample list has no digest")
    return passed(f"{samples.said}, digest {samples.digest[:12]}")


CHECKS = (size, claim, seeds, scoring, apart, cost, subset)
