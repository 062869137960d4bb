"""B, first part: what fails because gradients are masked. Every per-sample check judges probes and store alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis.intervals import clopper_pearson
from benchbox.audit.checks import premises
from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import BLACK_BOX, WHITE_BOX, Case, Kind, Panel, supposed, union
from benchbox.audit.verdict import Judgement, check, fail, incomplete, passed, warn, worst


@check("B1", "black-box beats white-box", masking=True, on=premises.differentiable)
def black_box(case: Case) -> Judgement | None:
    """Per sample: averages hide it.

    Needs: per-sample flags of score-based and gradient attacks
    Formula: samples that a score-based attack breaks and no gradient attack does, over N
    Threshold: > 0.2 %: WARN; > 1 % and at least 2: FAIL
    Finding: a black-box search breaks what no gradient attack breaks, a sign of masked gradients
    Source: Athalye et al. 2018; AutoAttack, check_square_sr, per sample
    """
    return _unique(case, BLACK_BOX, "a score-based attack", limit.UNIQUE_WARN, limit.UNIQUE_FAIL)


@check("B2", "transfer beats white-box", masking=True, on=premises.differentiable)
def transfer(case: Case) -> Judgement | None:
    """Does not apply where there is no other model to transfer from.

    Needs: per-sample flags of transferred images
    Formula: as B1, with images crafted on the bare classifier or on a substitute
    Threshold: > 0.2 %: WARN; > 1 % and at least 2: FAIL
    Finding: adversarial images of another model break what gradients of the defence do not
    Source: Carlini et al. 2019
    """
    if not any(panel.of("transfer") for panel in case.panels) and not case.subject.purifies:
        return None
    return _unique(case, ("transfer",), "a transferred image", limit.UNIQUE_WARN, limit.UNIQUE_FAIL)


@check("B3", "random points beat gradients", masking=True, on=premises.differentiable)
def random(case: Case) -> Judgement | None:
    """Only what gradients left standing is tried.

    Needs: 10,000 random points on each of 100 clean-correct samples
    Formula: samples that a random point breaks and no gradient attack does
    Threshold: ≥ 1: WARN; > 1 % and at least 2: FAIL
    Finding: random noise succeeds where gradients fail
    Source: Carlini et al. 2019; Athalye et al. 2018
    """
    return _unique(case, ("random",), "a random point", 0.0, limit.RANDOM_FAIL)


@check("B4", "one step beats many", masking=True, on=premises.differentiable)
def one_step(case: Case) -> Judgement | None:
    """Equal counts warn only: on a hundred samples a robust model may show them; B5 fails a stuck attack.

    Needs: flags of FGSM and of iterated attacks
    Formula: accuracy under PGD − accuracy under FGSM; samples only FGSM breaks
    Threshold: PGD weaker: FAIL; equal with samples left, or > 1 % of N by FGSM only: WARN
    Finding: the iterative attack is no stronger than a single step
    Source: Athalye et al. 2018
    """
    found = [one for panel in case.panels if (one := supposed(panel, WHITE_BOX, _one_step)) is not None]
    return worst(found) if found else incomplete("FGSM and an iterative attack are needed")


def _one_step(panel: Panel) -> Judgement | None:
    if not (panel.of("one-step") and panel.of("iterative")):
        return None
    if not panel.correct.any():
        return incomplete(f"{premises.NONE_CORRECT} ({panel.origin})")
    once, often = panel.broken("one-step"), panel.broken("iterative")
    only = once & ~often
    n = max(len(panel.indices), 1)
    said = f"FGSM breaks {int(once.sum())}, PGD {int(often.sum())}, FGSM alone {int(only.sum())} ({panel.origin})"
    numbers = {"one step": int(once.sum()), "many": int(often.sum()), "only": int(only.sum())}
    weaker = often.sum() < once.sum() or only.sum() / n > limit.ONE_STEP_WARN
    if (weaker or often.sum() == once.sum()) and not any(run.reaches for run in panel.of("iterative")):
        return incomplete(f"{said}; but its steps together are shorter than ε and cannot cross the ball")
    if often.sum() < once.sum():
        return fail(said, list(panel.indices[only]), **numbers)
    if only.sum() / n > limit.ONE_STEP_WARN:
        return warn(said, list(panel.indices[only]), **numbers)
    unbroken = int((panel.correct & ~often).sum())
    if unbroken and often.sum() == once.sum():
        return warn(f"{said}: the steps after the first gain nothing", **numbers)
    return passed(said, panel.lacking.get("iterative", ""), **numbers)


@check(
    "B5",
    "monotone in the radius",
    masking=True,
    on=(premises.correct, premises.differentiable, premises.tried("radii")),
)
def monotone(case: Case) -> Judgement:
    """Flat means that nothing more breaks from a quarter of epsilon to four times as much.

    A FAIL needs more than chance: where everything falls beyond epsilon, a search that misses two of a hundred
    there says nothing of epsilon.

    Needs: the same attack at ε/4, ε/2, ε, 2ε, 4ε
    Formula: samples broken at one radius and robust at a larger one; change along the ladder
    Threshold: > 0.5 %: WARN; lower end of their 95 % interval > 2 %, or flat above 0: FAIL
    Finding: robust accuracy does not fall as the radius grows
    Source: Athalye et al. 2018; Carlini et al. 2019
    """
    probes = case.probed
    radii = sorted(probes.ladder)
    rungs = [probes.ladder[r] & probes.panel.correct for r in radii]
    earlier = np.zeros_like(rungs[0])
    reverted = np.zeros_like(rungs[0])
    for rung in rungs:
        reverted |= earlier & ~rung
        earlier |= rung
    n = max(int(probes.panel.correct.sum()), 1)
    curve = [1 - float(rung.sum()) / n for rung in rungs]
    said = "robust " + " → ".join(f"{100 * c:.0f}" for c in curve) + f" %; {int(reverted.sum())} samples recover"
    numbers = {f"robust at {r:g} ε": c for r, c in zip(radii, curve, strict=True)}
    flat = curve[-1] > 0 and curve[0] - curve[-1] <= 0
    share, ids = reverted.sum() / n, list(probes.panel.indices[reverted])
    if flat or clopper_pearson(int(reverted.sum()), n)[0] > limit.MONOTONE_FAIL:
        return fail(said + ("; the curve is flat" if flat else ""), ids, **numbers)
    if share > limit.MONOTONE_WARN:
        return warn(said, ids, **numbers)
    return passed(said, probes.panel.lacking.get("iterative", ""), **numbers)


@check("B9", "gradient availability", masking=True, on=premises.probed)
def available(case: Case) -> Judgement:
    """A stand-in with gradients saves the evaluation, not the deployed defence's own gradients.

    Needs: gradients of both losses at the image and at a random point
    Formula: autograd error, Σ|g| = 0 for both losses, or NaN or infinity, through each model
    Threshold: any, or an autograd error through every model: WARN; > 5 % of the samples through every model, or
        any NaN or infinity: FAIL
    Finding: gradients are zero or unavailable: use a stand-in (BPDA) and a score-based attack
    Source: AutoAttack, check_zero_gradients; Pintor et al. 2022, I1
    """
    slopes = case.probed.gradients
    shares = {name: float(zero.mean()) for name, zero in slopes.zero.items()}
    everywhere = np.logical_and.reduce(list(slopes.zero.values()))
    said = ", ".join(f"{100 * share:.1f} % without gradient through {name}" for name, share in shares.items())
    said += "".join(f"; autograd through {name}: {text}" for name, text in slopes.refused.items())
    ids = list(case.probed.panel.indices[everywhere if everywhere.any() else slopes.zero["deployed"]])
    numbers = {**shares, "zero pixels": slopes.zero_pixels}
    broken = {name: flags for name, flags in slopes.broken.items() if flags.any()}
    if broken:
        told = ", ".join(f"{100 * flags.mean():.1f} % NaN or infinite through {n}" for n, flags in broken.items())
        return fail(
            f"{told}; {said}",
            list(case.probed.panel.indices[np.logical_or.reduce(list(broken.values()))]),
            **numbers,
        )
    if premises.differentiable(case):
        return warn(
            f"{said}; none is claimed, so none is masked: attacks without gradients alone tell", ids, **numbers
        )
    if everywhere.mean() > limit.ZERO_FAIL:
        return fail(said, ids, **numbers)
    if any(shares.values()):
        return warn(said, ids, **numbers)
    return passed(said, **numbers)


@check("B10", "loss-landscape noise", on=premises.correct)
def stability(case: Case) -> Judgement:
    """On clean-correct samples.

    Needs: 100 random draws in ±4/255
    Formula: mean of |ΔL| / |L| of the margin, clipped at 1
    Threshold: > 0.1: WARN
    Finding: predictions are unstable under noise: average gradients over it
    Source: Pintor et al. 2022, I2
    """
    correct = case.probed.panel.correct
    values = case.probed.gradients.unstable[correct]
    mean = float(values.mean())
    if mean > limit.UNSTABLE:
        return warn(
            f"{mean:.3f} on average", list(case.probed.panel.indices[correct][values > limit.UNSTABLE]), mean=mean
        )
    draws = case.probed.effort.noise
    lacking = f"under {draws} draws of noise, not {limit.NOISE_DRAWS:.0f}" if draws < limit.NOISE_DRAWS else ""
    return passed(f"{mean:.3f} on average", lacking, mean=mean)


@check("B12", "stand-in failure", masking=True, of=premises.standing_in)
def carries(case: Case) -> Judgement:
    """Does not apply without a stand-in.

    Needs: what the attacked model and the deployed defence said
    Formula: share of samples broken on a stand-in that no attack through it breaks on the deployed defence
    Threshold: > 20 %: WARN
    Finding: the stand-in's adversarial images do not carry over to the deployed defence
    Source: Pintor et al. 2022, I5
    """
    found = [
        one for panel in case.panels if (one := supposed(panel, ("iterative", "ensemble"), _carries)) is not None
    ]
    if not found:
        return incomplete("no attack through a stand-in broke anything")
    return max(found, key=lambda one: one.numbers.get("share", -1.0))


def _carries(panel: Panel) -> Judgement | None:
    worst_share, said, ids, lacking = -1.0, "", [], panel.lacking.get("few", "")
    for through in dict.fromkeys(run.through for run in panel.of(*WHITE_BOX) if run.through != "deployed"):
        runs = [run for run in panel.of(*WHITE_BOX) if run.through == through]
        seen = np.logical_or.reduce([run.seen for run in runs]) & panel.correct
        if not seen.any():
            continue
        lost = seen & ~union(runs, len(panel.indices))
        share = float(lost.sum() / seen.sum())
        if share > worst_share:
            worst_share = share
            said = f"{100 * share:.1f} % of {int(seen.sum())} through {through} ({panel.origin})"
            ids = list(panel.indices[lost])
    if worst_share < 0:
        return None
    judged = warn(said, ids, share=worst_share)
    return judged if worst_share > limit.TRANSFER_FAILURE else passed(said, lacking, share=worst_share)


@check("B16", "scale of the logits", masking=True, on=premises.probed)
def scale(case: Case) -> Judgement:
    """Probabilities behind a logarithm are what AutoAttack's rule misses.

    Needs: logits of the clean images
    Formula: AutoAttack's rule for probabilities; log Σ exp = 0; share with softmax exactly 1 in float32
    Threshold: fires, or > 5 %: WARN
    Finding: logits are not raw: the cross-entropy has no gradient; return logits and use a margin loss
    Source: AutoAttack, check_range_output; Carlini & Wagner 2017 on distillation
    """
    seen = case.probed.behaviour
    share = float(seen.saturated.mean())
    said = f"softmax is exactly 1 on {100 * share:.1f} %"
    ids = list(case.probed.panel.indices[seen.saturated])
    if seen.probabilities or seen.log_probabilities:
        kind = "they are probabilities" if seen.probabilities else "they are logarithms of probabilities"
        return warn(f"{kind}; {said}", ids, share=share)
    return warn(said, ids, share=share) if share > limit.SATURATED else passed(said, share=share)


def _unique(case: Case, kinds: tuple[Kind, ...], what: str, warn_above: float, fail_above: float) -> Judgement:
    """Samples that only runs of some kinds break, on each body of evidence."""

    def judge(panel: Panel) -> Judgement | None:
        return _unique_in(panel, kinds, what, warn_above, fail_above)

    # An attack of an unknown kind speaks most for the defence as a gradient, most against it as one of `kinds`.
    found = [one for panel in case.panels if (one := supposed(panel, ("iterative", kinds[0]), judge)) is not None]
    if found:
        return worst(found)
    return incomplete(f"no attack of this kind was run ({kinds[0]}) beside a gradient attack")


def _unique_in(
    panel: Panel, kinds: tuple[Kind, ...], what: str, warn_above: float, fail_above: float
) -> Judgement | None:
    if not panel.of(*kinds) or not panel.of(*WHITE_BOX):
        return None
    if not panel.correct.any():
        return incomplete(f"{premises.NONE_CORRECT} ({panel.origin})")
    only = panel.only(kinds, WHITE_BOX)
    n, k = max(len(panel.indices), 1), len(only)
    tried = int((panel.correct & ~panel.broken(*WHITE_BOX)).sum())
    said = f"{k} of {n} samples fall to {what} alone, {tried} withstood every gradient ({panel.origin})"
    hard, share = _resisting(panel, only)
    if k and share < 1:
        said += f"; {100 * share:.0f} % of those tried again withstand {limit.RESTARTS:.0f} starts"
        said += " and every target too"
    if share * k / n > fail_above and hard >= limit.FEW:
        if left_out := panel.lacking.get("pursuit", ""):
            return warn(f"{said}; {left_out}", list(only), only=k, n=n)
        return fail(said, list(only), only=k, n=n)
    if k / n > warn_above:
        return warn(said, list(only), only=k, n=n)
    # Where gradients left nothing standing there is nothing another attack could find.
    lacking = panel.lacking.get(kinds[0], "") or panel.lacking.get("samples", "") if tried else ""
    if panel.origin == "store" and "random" in kinds and tried:
        lacking = "the stored noise attack tries fewer points than the check asks for"
    return passed(said, lacking or panel.lacking.get("few", ""), only=k, n=n)


def _resisting(panel: Panel, only: NDArray[np.int64]) -> tuple[int, float]:
    """How many of some samples withstand gradients from many more starts, and what share of those it was tried on.

    Samples it was not tried on count as the others came out; all withstand where it was not tried at all.
    """
    chosen = np.isin(panel.indices, only)
    tried = chosen & panel.pursued if panel.pursued is not None else np.zeros_like(chosen)
    if not tried.any():
        return int(chosen.sum()), 1.0
    hard = tried & ~panel.broken("pursuit")
    return int(hard.sum()), float(hard.sum() / tried.sum())


CHECKS = (black_box, transfer, random, one_step, monotone, available, stability, carries, scale)
