"""B, second part: what fails because the attack is too weak, or is not what it seems."""

from __future__ import annotations

import numpy as np

from benchbox.analysis.pairs import mcnemar
from benchbox.audit.checks import premises
from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import WHITE_BOX, Case, union
from benchbox.audit.probes.measurements import Differences
from benchbox.audit.verdict import Judgement, check, fail, incomplete, passed, warn, worst


@check("B6", "convergence", on=premises.correct)
def convergence(case: Case) -> Judgement:
    """Of samples that withstood the attack: a broken one need not converge.

    Needs: loss at every step of PGD
    Formula: loss rescaled to [0, 1], running best, range over the last 10 steps
    Threshold: > 0.05 on more than 10 % of the surviving samples: WARN
    Finding: the optimisation is incomplete: take more steps
    Source: Pintor et al. 2022, I4
    """
    probes = case.probed
    survivors = probes.panel.correct & ~probes.panel.broken(*WHITE_BOX)
    if not survivors.any():
        return passed("no sample withstood the attack")
    if len(probes.trace) < 2:
        return incomplete("the attack left no trace of its loss")
    best = np.maximum.accumulate(probes.trace[:, survivors], axis=0)
    low, high = probes.trace[:, survivors].min(axis=0), best[-1]
    scaled = (best - low) / np.where(high > low, high - low, 1.0)
    tail = scaled[-int(limit.TAIL) :]
    moving = (tail[-1] - tail[0]) > limit.TAIL_RANGE
    share = float(moving.mean())
    said = (
        f"{int(moving.sum())} of {int(survivors.sum())} survivors still climb in the last {int(limit.TAIL)} steps"
    )
    ids = list(probes.panel.indices[survivors][moving])
    if share > limit.TAIL_SHARE:
        return warn(said, ids, share=share)
    return passed(said, probes.panel.lacking.get("iterative", ""), share=share)


@check("B7", "doubling", on=(premises.probed, premises.tried("doubled")))
def doubling(case: Case) -> Judgement:
    """Below 1,000 samples a drop of half a point cannot be ruled out, so there is no PASS.

    Needs: the same attack with twice the steps, and with twice the starts
    Formula: drop of robust accuracy; exact McNemar
    Threshold: ≥ 0.5 points or p < 0.05: WARN; ≥ 2 points and at least 2 samples: FAIL
    Finding: the attack has not converged: twice the effort breaks more
    Source: Carlini et al. 2019
    """
    probes = case.probed
    if not probes.doubled:
        return incomplete("no sample to double the attack on")
    once, n = probes.doubled["once"], int(probes.subset.sum())
    found = []
    for what in ("steps", "restarts"):
        twice = probes.doubled[what]
        gained, lost = int((twice & ~once).sum()), int((once & ~twice).sum())
        drop, p = (gained - lost) / n, mcnemar(gained, lost)
        said = f"twice the {what}: {100 * drop:+.1f} points of attack success on {n} samples (p = {p:.2g})"
        numbers = {f"{what}: drop": drop, f"{what}: p": p, "n": n}
        ids = list(probes.panel.indices[twice & ~once])
        if drop >= limit.DOUBLING_FAIL and gained - lost >= limit.FEW:
            found.append(fail(said, ids, **numbers))
        elif drop >= limit.DOUBLING_WARN or (drop > 0 and p < limit.SIGNIFICANT):
            found.append(warn(said, ids, **numbers))
        else:
            lacking = f"{limit.DOUBLING_SAMPLES:.0f} samples are needed to see half a point"
            nothing_left = bool(once[probes.subset].all())
            found.append(
                passed(said, lacking if n < limit.DOUBLING_SAMPLES and not nothing_left else "", **numbers)
            )
    return worst(found)


@check("B8", "silent success", of=premises.deterministic)
def silent(case: Case) -> Judgement:
    """Only where the attacked view is the deployed defence, and deterministic: else a single draw may err.

    Needs: first success of the attacked view, label of the returned image
    Formula: survivors on which the attacked view erred earlier
    Threshold: ≥ 1: WARN
    Finding: the returned image is not the worst one found: score the best iterate
    Source: Pintor et al. 2022, I3
    """
    found = []
    for panel in case.panels:
        runs = [r for r in panel.runs if r.through == "deployed" and r.kind not in ("pursuit", "control")]
        if not runs or not panel.correct.any():
            continue
        silent_ = np.zeros(len(panel.indices), bool)
        for run in runs:
            silent_ |= run.seen & ~run.broken & panel.correct
        covered = union([run for run in panel.runs if run.kind != "pursuit"], len(panel.indices)) & panel.correct
        ids = list(panel.indices[silent_])
        alone = int((silent_ & ~covered).sum())
        said = f"{len(ids)} samples, {alone} of them broken by nothing else ({panel.origin})"
        found.append(
            warn(said, ids, silent=len(ids)) if ids else passed(said, panel.lacking.get("few", ""), silent=0)
        )
    return worst(found) if found else incomplete("no attack on the deployed defence itself had anything to break")


@check("B11", "gradient fidelity", masking=True, on=premises.probed)
def fidelity(case: Case) -> Judgement | None:
    """Not by correlation: the directions that jump would dominate it.

    Needs: finite differences of the margin along random directions; gradients of a loss and of its parts
    Formula: median |FD − ⟨g, d⟩| / median |FD| at h = 1e-3, 1e-4 and 1e-5, the lowest; median
        |g(a + b) − g(a) − g(b)| over the longest
    Threshold: > 0.05 where plain autograd is said to be exact, > 0.5 at all h but the last, or one of the two is
        0: WARN; > 0.5, or NaN: FAIL, but WARN where a search along it leaves 5 % at most
    Finding: the gradient does not match finite differences
    Source: [P], after Carlini et al. 2019
    """
    claimed = case.subject.exact is not None or not case.subject.stand_ins
    slopes = case.probed.gradients
    if "deployed" in slopes.refused:
        # A network that autograd does not see through says so; a stand-in that is called exact does not.
        return fail("autograd gives no gradient at all") if case.subject.exact is not None else None
    if "deployed" in slopes.broken and slopes.broken["deployed"].any():
        share = float(slopes.broken["deployed"].mean())
        ids = list(case.probed.panel.indices[slopes.broken["deployed"]])
        return fail(f"{100 * share:.1f} % of the gradients are NaN or infinite", ids, broken=share)
    bent = {name: gap for name, gap in slopes.bent.items() if gap > limit.FIDELITY_WARN}
    if bent and not (case.probed.behaviour.batch_gap > limit.BATCH_GAP).any():  # A10 has that
        told = ", ".join(f"{name} by {gap:.2g} of the gradient" for name, gap in bent.items())
        said = f"its backward pass looks at the loss, or at the batch, and is another for each: {told}"
        return (fail if max(bent.values()) > limit.FIDELITY_FAIL else warn)(said, bent=max(bent.values()))
    return _compared(slopes.differences, claimed, _works(case, slopes.differences))


def _works(case: Case, found: Differences) -> bool:
    """Whether a search along it breaks nearly everything, and it is neither longer than the differences nor gone.

    As of spikes and signs that are trained with the gradient of something smooth, and of masks, whose jumps are in
    the differences and not in the gradient.
    """
    panel = case.probed.panel
    fell = union([r for r in panel.of(*WHITE_BOX) if r.through == "deployed"], len(panel.indices))
    standing = int((panel.correct & ~fell).sum())
    length = found.promised / found.seen if found.seen else 0.0
    return (
        standing <= limit.FIDELITY_STANDING * panel.correct.sum()
        and limit.FIDELITY_SHORTEST <= length <= limit.FIDELITY_LONGEST
    )


def _compared(found: Differences, claimed: bool, works: bool) -> Judgement:
    if found.error is None:
        return incomplete("differences and gradients are both 0 in the median; B9 judges that", difference=0.0)
    if found.seen == 0 or (found.promised == 0 and not claimed):
        said = "nothing moves where the gradient promises it" if found.seen == 0 else "what moves has no gradient"
        return warn(said, difference=found.seen, slope=found.promised)
    said = f"relative error {found.error:.3g}"
    if not claimed:
        return passed(f"{said}; not called exact by the defence", ratio=found.error)
    if found.error > limit.FIDELITY_FAIL:
        judged = warn if works else fail
        return judged(f"{said}, yet a search along it breaks nearly all" if works else said, ratio=found.error)
    if found.afar is not None and found.afar > limit.FIDELITY_FAIL:
        # No masking: B1 to B5 tell whether a search along such a gradient gets anywhere.
        blind = f"it is right between jumps ({said} nearby), which it does not see ({found.afar:.3g} further off)"
        return warn(blind, ratio=found.error, afar=found.afar)
    if found.error > limit.FIDELITY_WARN:
        return warn(said, ratio=found.error)
    return passed(said, ratio=found.error)


@check("B14", "binarisation test", on=(premises.probed, premises.tried("binarisation")))
def binarisation(case: Case) -> Judgement:
    """A failure speaks against the attack, not against the defence.

    Needs: penultimate features of the defended classifier, 64 samples
    Formula: success on planted adversarial examples; success of 200 random points
    Threshold: success < 0.95: FAIL; random > 0.05: INCOMPLETE, too easy
    Finding: the attack does not find adversarial examples that are known to exist
    Source: Zimmermann et al. 2022
    """
    probes = case.probed
    test = probes.binarisation
    if test is None:
        return incomplete(f"not run: {probes.no_binarisation}")
    if test.samples == 0:
        return incomplete(f"no readout separates the planted point on any of {test.failed} samples")
    said = (
        f"{100 * test.success:.1f} % found, random points {100 * test.random:.1f} %, "
        f"on {test.samples} samples with {test.points} inner points"
    )
    numbers = {"success": test.success, "random": test.random, "samples": test.samples, "points": test.points}
    if test.success < limit.BINARISATION:
        if test.samples < limit.BINARISATION_SAMPLES:
            return warn(f"{said}; too few samples for a FAIL", test.missed, **numbers)
        return fail(said, test.missed, **numbers)
    lacking = ""
    if test.random > limit.BINARISATION_EASY:
        lacking = "random points solve it too, so it is too easy to tell"
    elif test.samples < limit.BINARISATION_SAMPLES:
        lacking = f"{limit.BINARISATION_SAMPLES:.0f} samples are needed"
    return passed(said, lacking, **numbers)


@check("B18", "enough EOT draws", of=premises.randomized, on=(premises.tried("doubled"), premises.drawn))
def enough_draws(case: Case) -> Judgement:
    """Does not apply to a deterministic defence.

    Needs: two independent EOT gradients; the attack with twice the draws
    Formula: mean cosine; change of robust accuracy
    Threshold: cosine < 0.5, or ≥ 0.5 points: WARN
    Finding: gradients are averaged over too few draws
    Source: [P], after Athalye et al. 2018 and Gao et al. 2022
    """
    draws = case.probed.randomness
    assert draws is not None
    drop = draws.single - draws.doubled
    said = f"cosine {draws.cosine:.2f}; twice the draws: {-100 * drop:+.1f} points of robust accuracy"
    if draws.cosine < limit.EOT_COSINE or drop >= limit.DOUBLING_WARN:
        return warn(said, cosine=draws.cosine, drop=drop)
    return passed(said, cosine=draws.cosine, drop=drop)


@check("B19", "fixed randomness", of=premises.randomized, on=(premises.tried("doubled"), premises.drawn))
def frozen(case: Case) -> Judgement:
    """Does not apply to a deterministic defence.

    Needs: an attack on the defence with its draws known and held
    Formula: accuracy with held draws − accuracy under EOT
    Threshold: > 2 points: WARN
    Finding: the attack fails even without randomness, so randomness is not what defends
    Source: Carlini et al. 2019; Liu et al. 2024 (arXiv 2404.14309)
    """
    draws = case.probed.randomness
    assert draws is not None
    said = f"{100 * draws.frozen:.1f} % robust with held draws, {100 * draws.fresh:.1f} % under EOT"
    if draws.frozen > draws.fresh + limit.FROZEN_GAP:
        return warn(said, frozen=draws.frozen, fresh=draws.fresh)
    eot = case.probed.effort.eot
    lacking = f"over {eot} draws, not {limit.EOT_DRAWS:.0f}" if eot < limit.EOT_DRAWS else ""
    return passed(said, lacking, frozen=draws.frozen, fresh=draws.fresh)


@check("B20", "AutoAttack's flags", on=premises.probed)
def flags(case: Case) -> Judgement:
    """Asked afresh, not read from a log. A defence that looks at its own saliency is dynamic by design.

    Needs: the same questions AutoAttack asks of a model
    Formula: randomised, probabilities, zero gradients, dynamic, number of classes
    Threshold: any: WARN
    Finding: AutoAttack would flag this model
    Source: AutoAttack, checks.py and flags_doc.md
    """
    seen, slopes = case.probed.behaviour, case.probed.gradients
    raised = {
        "randomised": premises.restless(case) or case.subject.randomized,
        "probabilities": seen.probabilities,
        "zero gradients": bool(slopes.zero["deployed"].any()),
        "dynamic (computes gradients itself)": seen.dynamic,
        "fewer than four classes": seen.classes < 4,
    }
    names = [name for name, up in raised.items() if up]
    return warn(", ".join(names), flags=len(names)) if names else passed("no flag", flags=0)


@check("B21", "stand-ins are what they say", of=premises.standing_in, on=premises.probed)
def stand_ins(case: Case) -> Judgement | None:
    """Does not apply without a stand-in that is attacked.

    Needs: logits of every stand-in and of the deployed defence, at the images and at random points; the gradient
        of the one that is called exact
    Formula: largest difference of a logit over the largest logit; median distance of the two gradients
    Threshold: > 1e-3; > 5 % of the gradient: FAIL
    Finding: a stand-in is not what it says
    Source: Athalye et al. 2018: BPDA keeps the forward pass exact
    """
    gaps, exact = case.probed.gradients.forward_gap, case.probed.gradients.exact_gap
    if exact is not None and not exact <= limit.EXACT_GAP:
        said = f"{case.subject.exact} is called exact, and its gradient is another than autograd's"
        return fail(f"{said}, by {100 * exact:.0f} % of it", exact=exact)
    if not gaps:
        return None if exact is None else passed(f"{case.subject.exact} has autograd's gradient", exact=exact)
    bad = {name: gap for name, gap in gaps.items() if not gap <= limit.FORWARD_GAP}
    said = ", ".join(f"{name} by {gap:.2g}" for name, gap in (bad or gaps).items())
    if bad:
        return fail(
            f"it answers otherwise than the defence, so attacks through it attack another model: {said}", **gaps
        )
    return passed(said, **gaps)


@check("B22", "the probes against the store", on=(premises.probed, premises.stored))
def against_store(case: Case) -> Judgement:
    """On the samples that both know.

    Needs: samples that the probes broke, and those that the stored attacks broke
    Formula: samples that withstood every stored attack and fell to a probe
    Threshold: ≥ 1: WARN; > 1 % and at least 2: FAIL
    Finding: the stored attacks were too weak: short probes break what withstood them
    Source: [P]: the probes read 0 % where the store said 97.5 %, and nobody compared
    """
    stored, probed = case.panels[-1], case.probed.panel
    fallen = union(probed.runs, len(probed.indices)) & probed.correct
    stands = stored.correct & ~union([run for run in stored.runs if run.kind != "pursuit"], len(stored.indices))
    both = np.intersect1d(stored.indices, probed.indices)
    more = np.intersect1d(stored.indices[stands], probed.indices[fallen])
    if not len(both):
        return incomplete("the probed samples are not among the stored ones")
    left = len(np.intersect1d(stored.indices[stands], both))
    said = f"{left} of {len(both)} samples withstood every stored attack, {len(more)} of them fell to a probe"
    if len(more) >= limit.FEW and len(more) / len(both) > limit.PROBES_FAIL:
        return fail(said, list(more), more=len(more), n=len(both))
    return warn(said, list(more), more=len(more)) if len(more) else passed(said, more=0)


CHECKS = (
    convergence,
    doubling,
    silent,
    fidelity,
    binarisation,
    enough_draws,
    frozen,
    flags,
    stand_ins,
    against_store,
)
