"""A: is the number what it says it is? Any FAIL keeps a defence out of the ranking."""

from __future__ import annotations

import numpy as np

from benchbox.analysis.certificate import certificate
from benchbox.analysis.intervals import clopper_pearson
from benchbox.analysis.pairs import mcnemar
from benchbox.audit.checks import premises
from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import WHITE_BOX, Case, Panel, supposed, undeclared
from benchbox.audit.verdict import Judgement, check, fail, incomplete, passed, warn
from benchbox.domain import Access

#: What an attack says it stands for whose passes are known.
AUTOATTACK = "AutoAttack"


@check("A1", "budget", on=premises.stored)
def budget(case: Case) -> Judgement:
    """Distances as stored by the engine, and the images themselves where they were read again.

    Needs: stored distances and images
    Formula: max ‖x_adv − x‖ − ε; range of x_adv; NaN
    Threshold: > 1e-6, outside [−1e-6, 1 + 1e-6], any NaN: FAIL
    Finding: adversarial examples outside the threat model
    Source: AutoAttack's final print, enforced
    """
    cells = case.stored.finished
    excess = -np.inf
    samples: list[int] = [i for one in case.stored.rescored for i in one.outside]
    for evidence in cells:
        threat, outcome = evidence.cell.threat, evidence.outcome
        over = outcome.lengths(threat) - threat.epsilon
        excess = max(excess, float(over.max()))
        bad = outcome.position[~(over <= limit.RANGE_SLACK)]
        samples += [evidence.cell.samples.indices[p] for p in bad]
    if samples:
        return fail(f"{len(set(samples))} images, by up to {max(excess, 0):.2g}", sorted(set(samples)))
    images = sum(one.asked for one in case.stored.rescored)
    return passed(
        f"{len(cells)} cells inside the ball by their distances, {images} images read again", excess=excess
    )


@check("A2", "coverage")
def coverage(case: Case) -> Judgement | None:
    """Of cells that call themselves done.

    Needs: stored positions
    Formula: every sample of the list exactly once
    Threshold: any mismatch: FAIL
    Finding: samples are missing or counted twice
    Source: DiffPure and CARSO evaluation code, which drop or pad batches
    """
    done = [cell for cell in case.stored.cells if cell.status == "done"]
    if not done:
        return incomplete(premises.NOTHING_STORED)
    for evidence in done:
        wanted = np.arange(len(evidence.cell.samples))
        if not np.array_equal(np.sort(evidence.outcome.position), wanted):
            got = len(np.unique(evidence.outcome.position))
            return fail(f"{evidence.cell.attack.name} has {got} of {len(wanted)} samples", got=got, of=len(wanted))
        if len(set(evidence.cell.samples.indices)) < len(wanted):
            return fail(f"the sample list of {evidence.cell.attack.name} names an image twice")
    open_ = len(case.stored.cells) - len(done)
    return passed(f"{len(done)} cells have each sample once", f"{open_} cells are unfinished" if open_ else "")


@check("A3", "re-score", of=premises.deterministic)
def rescore(case: Case) -> Judgement:
    """The audit is a process of its own, so state left over from the attack is gone.

    Needs: stored images, the defence loaded afresh
    Formula: class of the stored image now = class stored
    Threshold: any difference: WARN; surely more than 1 % of the images (95 % interval): FAIL
    Finding: stored adversarial images are classified differently now
    Source: RobustBench, which re-scores x_adv
    """
    found = case.stored.rescored
    if not found:
        return incomplete("no stored adversarial image was classified again")
    differ = sorted({i for one in found for i in one.differ})
    asked, times = sum(one.asked for one in found), sum(len(one.differ) for one in found)
    if differ:
        # An attack ends at the border, where rounding decides: another batch, another answer of a hard mask.
        judge = fail if clopper_pearson(times, asked).low > limit.TWO_ANSWERS else warn
        return judge(f"{len(differ)} samples, in {times} of {asked} images", differ, differ=times, asked=asked)
    return passed(f"{asked} images of {len(found)} cells keep their class", asked=asked)


@check("A4", "threat-model domain")
def domain(case: Case) -> Judgement | None:
    """The engine itself compares shapes when an attack returns.

    Needs: shape of stored images
    Formula: shape of the perturbation = shape of the data set's images
    Threshold: differ: FAIL
    Finding: the perturbation was applied after resizing
    Source: AToP's notebook, which attacks 256×256 copies of 32×32 images
    """
    shapes = {one.shape for one in case.stored.rescored}
    if not shapes:
        return incomplete("no stored adversarial image was read again")
    wrong = shapes - {tuple(case.stored.shape)}
    if wrong:
        return fail(f"images of {sorted(wrong)[0]} in a data set of {case.stored.shape}")
    return passed(f"images of {tuple(case.stored.shape)}, as in the data set")


@check(
    "A5", "unbounded attack", masking=True, on=(premises.correct, premises.differentiable, premises.tried("radii"))
)
def unbounded(case: Case) -> Judgement:
    """With the whole box to move in, every image of another class is in reach.

    Needs: probes with ε = 0.5 and ε = 1 (L∞)
    Formula: accuracy on clean-correct samples
    Threshold: ε = 1: > 0; ε = 0.5: above the largest class share's upper bound: FAIL
    Finding: gradients do not reach 0 % without a bound: the attack is broken or the gradients are masked
    Source: Carlini et al. 2019; CARSO's run at ε = 0.95
    """
    probes = case.probed
    correct = probes.panel.correct
    left = {radius: correct & ~broken for radius, broken in probes.unbounded.items()}
    n = int(correct.sum())
    share = {radius: float(flags.sum()) / n for radius, flags in left.items()}
    largest = int(np.bincount(probes.labels[correct]).max())
    guess = clopper_pearson(largest, n).high
    said = ", ".join(f"{100 * s:.1f} % left at ε = {r:g}" for r, s in sorted(share.items()))
    if share[1.0] > 0 or share[0.5] > guess:
        radius = 1.0 if share[1.0] > 0 else 0.5
        return fail(said, list(probes.panel.indices[left[radius]]), full=share[1.0], half=share[0.5], guess=guess)
    lacking = "" if n >= 100 else f"on {n} samples, not 100"
    return passed(said, lacking, full=share[1.0], half=share[0.5])


@check("A6", "determinism", on=premises.probed)
def determinism(case: Case) -> Judgement:
    """A randomised defence takes all randomness from its draws, so with the same draws it is held to this too.

    Needs: five calls on the same images, with the same draws
    Formula: labels equal; L2 distance of normalised logits, change of a logit over the largest; parameters and
        buffers unchanged
    Threshold: label change, > 1e-4, or changed state: FAIL
    Finding: the defence does not answer the same twice though it says so
    Source: AutoAttack, check_randomized
    """
    seen = case.probed.behaviour
    gap, relabelled = float(seen.repeat_gap.max()), int(seen.relabelled.sum())
    ids = list(case.probed.panel.indices[seen.relabelled | (seen.repeat_gap > limit.REPEAT_GAP)])
    how = [f"distance {gap:.2g}, {relabelled} labels change"]
    if seen.first_differs:
        how.append("the first call differs from all later ones")
    if seen.state_changed:
        how.append("its parameters or buffers change by being asked")
    if relabelled or gap > limit.REPEAT_GAP or seen.state_changed:
        kind = "with its draws held" if case.subject.randomized else "declare it randomised and score fresh draws"
        return fail(f"{'; '.join(how)}; {kind}", ids, gap=gap, relabelled=relabelled, first=seen.first_differs)
    return passed(f"five calls agree, distance {gap:.2g}", gap=gap)


@check("A7", "attack moved", on=premises.differentiable)
def moved(case: Case) -> Judgement | None:
    """By single steps from the image itself: a random start moves without any gradient.

    Needs: displacement of gradient attacks
    Formula: share of clean-correct samples that no attack broke and none moved by 0.01 ε
    Threshold: > 0.5 %: FAIL
    Finding: the gradient attack did not move (zero or NaN gradient)
    Source: torchattacks' MIFGSM, whose momentum freezes at the first zero gradient
    """
    nearest = limit.STILL * case.stored.threat.epsilon
    found = [
        one
        for panel in case.panels
        if (one := supposed(panel, WHITE_BOX, lambda panel: _moved(panel, nearest))) is not None
    ]
    if not found:
        return incomplete("no single-step attack was run")
    return max(found, key=lambda one: one.numbers.get("share", -1.0))


def _moved(panel: Panel, nearest: float) -> Judgement | None:
    runs = panel.of("one-step")
    if not runs or not panel.correct.any():
        return None
    farthest = np.max([run.moved for run in runs], axis=0)
    still = panel.correct & ~panel.broken(*WHITE_BOX) & (farthest < nearest)
    share = float(still.sum() / panel.correct.sum())
    said = f"{int(still.sum())} of {int(panel.correct.sum())} samples stay where they are ({panel.origin})"
    if share > limit.STILL_SHARE:
        return fail(said, list(panel.indices[still]), share=share)
    return passed(said, panel.lacking.get("few", ""), share=share)


@check("A8", "implementation identity", of=premises.deterministic)
def identity(case: Case) -> Judgement | None:
    """Passes are stored as means of a batch, so the bound is what the survivors alone must have cost.

    Needs: pass counts of stored AutoAttack cells
    Formula: mean passes ≥ share of survivors × (7857 forward, 1910 backward)
    Threshold: fewer: FAIL
    Finding: this is not AutoAttack
    Source: torchattacks' AutoAttack, which has run 10 instead of 100 steps since its version 3.3
    """
    cells = [c for c in case.stored.finished if c.cell.access is Access.WHITE_BOX and c.cell.eot == 1]
    ran = [c for c in cells if c.cell.nature and c.cell.nature.stands_for == AUTOATTACK]
    if not ran:
        unclear = undeclared(cells)
        return incomplete(unclear) if unclear else None
    if case.probes is not None and case.probes.behaviour.classes < 10:
        return incomplete("with fewer than ten classes AutoAttack has fewer targets, and no known count")
    for evidence in ran:
        outcome = evidence.outcome
        share = float(((outcome.first_success < 0) & (outcome.robust > 0.5)).mean())
        forwards, backwards = float(outcome.forwards.mean()), float(outcome.backwards.mean())
        said = f"{forwards:.0f} + {backwards:.0f} passes a sample with {100 * share:.1f} % survivors"
        if forwards < share * limit.AA_FORWARDS - 1 or backwards < share * limit.AA_BACKWARDS - 1:
            return fail(said, forwards=forwards, backwards=backwards, survivors=share)
    return passed(said, forwards=forwards, backwards=backwards, survivors=share)


@check("A9", "clean accuracy", on=(premises.stored, premises.probed))
def clean(case: Case) -> Judgement:
    """Now against what was stored with the attacks; draws are others now, so there it has to be beyond chance.

    Needs: stored clean predictions, the defence loaded afresh
    Formula: difference of the clean accuracies, on the same samples; of most draws, exact McNemar
    Threshold: > 0.05 points and at least 2 samples: FAIL; any change: WARN; randomised: p < 0.001: FAIL
    Finding: weights or preprocessing differ from those that were scored
    Source: RobustBench's reproduction test
    """
    evidence = case.stored.finished[0]
    at = {index: row for row, index in enumerate(evidence.cell.samples.indices)}
    panel = case.probed.panel
    rows = [(i, at[int(index)]) for i, index in enumerate(panel.indices) if int(index) in at]
    if not rows:
        return incomplete("the probed samples are not among the stored ones")
    order = np.argsort(evidence.outcome.position)
    stored = evidence.outcome.clean_correct[order] > 0.5
    now, then = panel.correct[[i for i, _ in rows]], stored[[j for _, j in rows]]
    gap = abs(float(now.mean()) - float(then.mean()))
    said = f"{100 * now.mean():.2f} % now, {100 * then.mean():.2f} % stored, on {len(rows)} samples"
    differ = [int(panel.indices[i]) for (i, _), a, b in zip(rows, now, then, strict=True) if a != b]
    if case.subject.randomized:
        p = mcnemar(int((now & ~then).sum()), int((then & ~now).sum()))
        said += f" (p = {p:.2g})"
        return fail(said, differ, gap=gap, p=p) if p < limit.BEYOND_CHANCE else passed(said, gap=gap, p=p)
    if gap > limit.CLEAN_GAP and len(differ) >= limit.FEW:
        return fail(said, differ, gap=gap)
    if differ:
        return warn(f"{said}; {len(differ)} samples changed sides", differ, gap=gap)
    return passed(said, gap=gap)


@check("A10", "batch independence", on=premises.settled)
def batches(case: Case) -> Judgement:
    """Reversed, in sevens, one by one, beside copies of the same image, and beside others of its ball.

    Needs: the same images in other orders, batch sizes and company
    Formula: labels; max |Δ logit| over the largest logit
    Threshold: label change or > 1e-4: FAIL; a module in training mode: WARN
    Finding: a prediction depends on the images beside it
    Source: saliency averaged over a batch; batch norm in training mode
    """
    seen = case.probed.behaviour
    gap, relabelled = float(seen.batch_gap.max()), int(seen.batch_relabelled.sum())
    said = f"{relabelled} labels change, logits by {gap:.2g} of the largest"
    if relabelled or gap > limit.BATCH_GAP:
        ids = case.probed.panel.indices[seen.batch_relabelled | (seen.batch_gap > limit.BATCH_GAP)]
        return fail(said, list(ids), gap=gap, relabelled=relabelled)
    if seen.training:
        return warn(f"{said}, but a module is in training mode", gap=gap)
    return passed(said, gap=gap)


@check("A11", "no memory of the images", on=premises.settled)
def memory(case: Case) -> Judgement:
    """No classifier of images sees a change of one part in a million; a table of their hashes does.

    Needs: the same images with inaudible noise (1e-6, and one grey level)
    Formula: share of samples whose logits change by more than 0.1 of their spread
    Threshold: > 5 %: WARN; > 50 %: FAIL, but WARN where they change less the fainter the noise is
    Finding: the answers change under noise that nobody sees
    Source: [P]: a look-up of known images by a hash passes every other check
    """
    heard = case.probed.behaviour
    jumps = heard.jump > limit.JUMP
    share, beside, dimmed = (float((c > limit.JUMP).mean()) for c in (heard.jump, heard.beside, heard.dimmed))
    said = f"{100 * share:.1f} % of the samples jump, by up to {heard.jump.max():.2g} of their spread"
    ids = list(case.probed.panel.indices[jumps])
    if share <= limit.JUMP_FAIL:
        return warn(said, ids, share=share) if share > limit.JUMP_WARN else passed(said, share=share)
    if beside <= limit.JUMP_WARN:
        if float((heard.shifted > limit.JUMP).mean()) > limit.JUMP_FAIL:
            said += ", and so do shifted ones: it tells images of whole grey levels from all others"
            return fail(f"{said}, as an attack makes them", ids, share=share)
        return fail(f"{said}, and images beside them do not: it knows the test images", ids, share=share)
    said += ", and images beside them as well"
    if dimmed <= limit.JUMP_WARN:
        said += ", yet none where equal pixels stay equal: no memory, but a hard decision between equal pixels"
        return warn(f"{said}, as of a mask over a flat background", ids, share=share)
    growth = [float(g) for g in np.median(heard.growth[jumps], 0) if limit.GROWTH_LEAST <= g <= limit.GROWTH_MOST]
    if growth:
        said += f", yet {growth[0]:.2g} of that under fainter noise: no memory, but decisions, of which more noise"
        return warn(f"{said} turns more, as of a mask", ids, share=share, growth=growth[0])
    said += ": no memory, but noise drawn from a hash of the image; take it from `draws`"
    return fail(f"{said}, so that an attacker can average over it", ids, share=share)


@check("A18", "proofs hold")
def proofs(case: Case) -> Judgement | None:
    """Does not apply to a defence that proves nothing. What fell did so in the store, or to a probe.

    Needs: what is certified of stored images, every stored attack, the probes
    Formula: certified images that are misclassified in some draw, as they are or attacked
    Threshold: ≥ 1: FAIL
    Finding: a proof is wrong, so none of them is one
    Source: [P]: no lower bound lies above an upper one
    """
    cells = case.stored.cells
    lists = dict.fromkeys(cell.cell.samples for cell in cells)
    by_list = [certificate([cell for cell in cells if cell.cell.samples == samples]) for samples in lists]
    said = [one for one in by_list if one is not None]
    if not said:
        return None
    claimed = {index for one in said for index in one.certified}
    fallen = {index for one in said for index in one.refuted}
    ways = [way for one in said for way in one.fell_to]
    if probed := claimed & _fell_to_probes(case):
        fallen |= probed
        ways.append("the probes")
    numbers = {"certified": len(claimed), "refuted": len(fallen)}
    if fallen:
        under = ", ".join(dict.fromkeys(ways))
        told = f"{len(fallen)} of {len(claimed)} certified images are misclassified under {under}"
        return fail(told, sorted(fallen), **numbers)
    return passed(f"{len(claimed)} images are certified, and none of them fell", **numbers)


def _fell_to_probes(case: Case) -> set[int]:
    """Images that some draw of the deployed defence got wrong where the probes looked inside the ball."""
    if case.probes is None:
        return set()
    panel = case.probes.panel
    wrong = [run.broken if run.right is None else ~run.right.all(axis=1) for run in panel.runs]
    return set(panel.indices[np.any(wrong, axis=0)].tolist()) if wrong else set()


CHECKS = (
    *(budget, coverage, rescore, domain, unbounded, determinism, moved, identity, clean, batches, memory),
    proofs,
)
