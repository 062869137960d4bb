"""A, second part: does a defence answer the same, whoever asks, however, and about whatever images?

Each of these has kept a defence of 0 % at 97: it told scoring from attacking, remembered what it had been asked,
or knew the test images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchbox.audit.checks import premises
from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import BLACK_BOX, WHITE_BOX, Case
from benchbox.audit.probes.measurements import Behaviour
from benchbox.audit.verdict import Judgement, check, fail, incomplete, passed, warn
from benchbox.contract.overheard import NEVER


@check("A12", "one answer to one image", of=premises.deterministic, on=premises.probed)
def one_answer(case: Case) -> Judgement:
    """Does not apply to a randomised defence. The probes keep the image that broke, so no attack is to blame.

    Needs: what the probes saw while they searched, and what the image they kept is scored as, twice
    Formula: samples on which the defence erred during the search, or once when scored, and not on that image again
    Threshold: ≥ 1: WARN; > 1 % and at least 2: FAIL
    Finding: the same image is answered in two ways, say wrongly while it is attacked and rightly when it is scored
    Source: [P]; Pintor et al. 2022, I3, of attacks that keep the worst image themselves
    """
    panel = case.probed.panel
    two = np.zeros(len(panel.indices), bool)
    for run in panel.runs:
        if run.through == "deployed" and run.kind == "iterative":
            two |= run.seen & ~run.broken & panel.correct
        if run.twice is not None:
            two |= run.twice
    said = f"{int(two.sum())} of {len(two)} samples"
    ids = list(panel.indices[two])
    if two.sum() >= limit.FEW and two.mean() > limit.TWO_ANSWERS:
        return fail(said, ids, two=len(ids))
    return warn(said, ids, two=len(ids)) if ids else passed(f"{said} were answered in two ways", two=0)


@check("A13", "the same however it is asked", on=premises.comparable)
def indifferent(case: Case) -> Judgement:
    """Names each way in which the answers differ.

    Needs: logits with and without a gradient, under other names and seeds, after other questions, and at the end;
        other questions are asked in forks of the process, so that nothing but a file is shared
    Formula: largest change of a logit over the largest logit
    Threshold: > 1e-4 on more than 5 % of the samples: FAIL
    Finding: the answer hangs on who asks
    Source: [P]: what tells scoring from attacking keeps a defence of 0 % at 97
    """
    seen = case.probed.behaviour
    ways = {
        "another answer where no gradient is asked for": seen.mode_gap,
        "another answer under other indices and seeds": seen.name_gap,
        "an image is answered by what was asked before it": seen.history,
        "at the end of the audit an image is answered by what was asked before it": seen.late_history,
        "another answer in a fork of the process, which has met nothing": _either(seen),
        "another answer at the end of the audit than at its beginning": seen.later,
    }
    told, ids = [], np.zeros(len(case.probed.panel.indices), bool)
    for way, gaps in ways.items():
        if gaps is not None and (gaps > limit.REPEAT_GAP).mean() > limit.JUMP_WARN:
            told.append(f"{way} ({100 * (gaps > limit.REPEAT_GAP).mean():.0f} % of the samples)")
            ids |= gaps > limit.REPEAT_GAP
    if told:
        return fail("; ".join(told), list(case.probed.panel.indices[ids]), ways=len(told))
    lacking = (
        "it could be neither forked nor copied, so what it remembers was not tried" if seen.history is None else ""
    )
    return passed("no gradient, other names, other questions before and after change nothing", lacking, ways=0)


def _either(seen: Behaviour) -> NDArray[np.float64] | None:
    """(N,) the larger of the two, as far as they are there."""
    found = [gap for gap in (seen.process_gap, seen.late_process_gap) if gap is not None]
    return np.max(found, axis=0) if found else None


@check("A14", "images that nobody has seen", on=(premises.probed, premises.tried("elsewhere")))
def unseen(case: Case) -> Judgement:
    """Fewer attacks than on the test images, so that robustness may only seem higher there.

    Needs: the probes on training images, and on test images shifted, turned or mixed with others of their class by
        amounts that nobody can foresee, beyond ε of every test image
    Formula: share that withstands, of what is right: test images − images from elsewhere
    Threshold: ≥ 50 points: WARN; ≥ 75 from one source (of mixtures only where at most 5 % withstand: they are
        unlike what honest ones were trained on, too), or ≥ 50 from every one: FAIL
    Finding: it is more robust on the test images than elsewhere
    Source: [P]: a look-up of the nearest test image falls from 97 to 0 % there
    """
    panel, found = case.probed.panel, case.probed.unseen
    found = {name: one for name, one in found.items() if one.correct}
    if not panel.correct.any() or not found:
        return incomplete("no image, here or from elsewhere, is classified rightly")
    here = 1 - float(panel.broken(*WHITE_BOX, *BLACK_BOX, "random", "transfer").sum() / panel.correct.sum())
    there = {name: one.robust / one.correct for name, one in found.items()}
    drops = {name: here - share for name, share in there.items()}
    said = f"{100 * here:.0f} % withstand the probes; " + ", ".join(
        f"{100 * there[name]:.0f} % of {one.correct} {name}" for name, one in found.items()
    )
    numbers = {"test images": here, **there}
    steep = {name for name, drop in drops.items() if drop >= limit.UNSEEN_FAIL}
    if there.get("mixed", 0) > limit.UNSEEN_MIXED:
        steep.discard("mixed")
    if steep or (min(drops.values()) >= limit.UNSEEN_WARN and len(drops) > 1):
        return fail(f"{said}: it knows them, remembers what it met first, or was trained on them", **numbers)
    if max(drops.values()) >= limit.UNSEEN_WARN:
        return warn(f"{said}: a memory, or images unlike those that it was trained on", **numbers)
    few = min(one.correct for one in found.values()) < limit.UNSEEN_SAMPLES
    return passed(said, f"{limit.UNSEEN_SAMPLES:.0f} images of each are needed" if few else "", **numbers)


@check("A15", "constant answers", on=premises.probed)
def constant(case: Case) -> Judgement:
    """Coarse rounding is constant too, and honest: then images from elsewhere are constant as well.

    Needs: logits at four random points of the ball
    Formula: share of samples whose logits are equal to the last bit; the same of images from elsewhere
    Threshold: > 5 %: WARN; > 50 %, and less than half as many elsewhere: FAIL
    Finding: the logits are the very same all over the ball
    Source: [P]: a continuous function moves; a look-up, a memory and a coarse rounding do not
    """
    flags, found = case.probed.behaviour.constant, case.probed.unseen
    share, correct = float(flags.mean()), sum(one.correct for one in found.values())
    elsewhere = sum(one.constant for one in found.values()) / max(correct, 1)
    ids = list(case.probed.panel.indices[flags])
    said = f"{100 * share:.0f} % of the samples, {100 * elsewhere:.0f} % of images from elsewhere"
    numbers = {"share": share, "elsewhere": elsewhere}
    if share > limit.JUMP_FAIL and correct and elsewhere < share / 2:
        return fail(f"{said}: it looks them up", ids, **numbers)
    if share > limit.JUMP_WARN:
        return warn(f"{said}: rounding, or a memory; no gradient says anything there", ids, **numbers)
    return passed(said, **numbers)


@check("A16", "it looks at its images alone", on=premises.probed)
def keeps_to_itself(case: Case) -> Judgement:
    """Python tells what is asked of the process; the time, and where an image lies in memory, it does not.

    Needs: events of Python's audit hooks while the defence is asked, and from threads that it started; names in
        its code
    Formula: lists of objects, frames of threads, files and variables written; files read, threads, processes
    Threshold: any of the first: FAIL; of the others: WARN
    Finding: it asks its process for more than its images
    Source: [P]; PEP 578
    """
    heard = case.probed.heard
    never = sorted(heard & NEVER)
    if never:
        return fail(f"{', '.join(never)}: there it can see who asks, or keep what it was asked", things=len(never))
    odd = sorted(heard)
    return warn(f"{', '.join(odd)}; read its code", things=len(odd)) if odd else passed("nothing", things=0)


@check("A17", "it answers", on=premises.probed)
def answers(case: Case) -> Judgement:
    """Who refuses is counted as if it had named the first class, which is right for some images.

    Needs: logits at four random points of the ball
    Formula: share of samples with a point at which all logits are equal
    Threshold: ≥ 1: WARN; > 5 %: FAIL
    Finding: it refuses to answer inside the ball: all its logits are equal there
    Source: [P]; a threat model for refusals has to count them (Tramèr 2022), and this one counts classes
    """
    flags = case.probed.behaviour.refuses
    said, ids = f"{int(flags.sum())} of {len(flags)} samples", list(case.probed.panel.indices[flags])
    if flags.mean() > limit.REFUSES:
        return fail(said, ids, refuses=len(ids))
    return warn(said, ids, refuses=len(ids)) if ids else passed(f"{said} without an answer", refuses=0)


CHECKS = (one_answer, indifferent, unseen, constant, keeps_to_itself, answers)
