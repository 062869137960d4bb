"""C: was everything tried that an attacker would try? From the store alone."""

from __future__ import annotations

from benchbox.analysis import pairs
from benchbox.analysis.worst_case import surviving
from benchbox.audit.checks import premises
from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import Case, Subject, families, undeclared
from benchbox.audit.verdict import Judgement, check, incomplete, passed, warn
from benchbox.domain import Access

#: A recipe with one of these fields trains on attacks, and they are FGSM or PGD.
TRAINS_ON_ATTACKS = ("attack_steps", "attack_step_size")


@check("C1", "attack families", on=premises.stored)
def diversity(case: Case) -> Judgement:
    """FGSM, BIM, MIM and PGD are one family.

    Needs: names and accesses of finished attacks
    Formula: number of families; a score-based one, a transferred one, a gradient of the whole defence
    Threshold: < 4, or one of the three missing: INCOMPLETE
    Finding: the attacks are too much alike
    Source: Carlini et al. 2019
    """
    cells = case.stored.finished
    found = families(cells)
    missing = [] if len(found) >= limit.FAMILIES else [f"only {len(found)} families"]
    missing += [f"no {need} attack" for need in ("score-based", "transfer") if need not in found]
    whole = families([c for c in cells if c.cell.access in (Access.WHITE_BOX, Access.BPDA)])
    if not any(family.startswith("gradient") for family in whole):
        missing.append("no gradient attack on the whole defence")
    if missing and (unclear := undeclared(cells)):
        missing.append(unclear)
    said = ", ".join(sorted(found))
    return incomplete(f"{', '.join(missing)}; there is {said}", families=len(found)) if missing else passed(said)


@check("C2", "adaptive variants", of=premises.purifying)
def adaptive(case: Case) -> Judgement:
    """Does not apply to a defence without purifier.

    Needs: stand-ins of finished cells
    Formula: every stand-in, a score-based attack, and images of the bare classifier
    Threshold: any missing: INCOMPLETE
    Finding: the defence was not attacked adaptively
    Source: Tramèr et al. 2020; Croce et al. 2022
    """
    cells = case.stored.finished
    through = {c.cell.view.stand_in for c in cells if c.cell.access is Access.BPDA}
    wanted = {name for name in case.subject.stand_ins if name != case.subject.exact}
    missing = [f"stand-in {name}" for name in sorted(wanted - through)]
    if "score-based" not in families(cells):
        missing.append("a score-based attack")
    if not any(c.cell.access is Access.GRAY_BOX for c in cells):
        missing.append("images of the bare classifier (gray-box)")
    if missing:
        return incomplete(f"missing: {', '.join(missing)}", missing=len(missing))
    return passed(f"{len(through)} stand-ins, a score-based attack and images of the bare classifier")


@check("C3", "gain over the bare classifier", of=premises.purifying)
def gain(case: Case) -> Judgement:
    """Does not apply to a defence that builds on no other classifier.

    Needs: cells of the bare classifier on the same samples
    Formula: difference of the worst cases, paired, 95 % interval
    Threshold: lower end ≤ 0: WARN
    Finding: no significant gain over the classifier without the defence
    Source: Croce et al. 2022
    """
    own, static = case.stored.finished, case.stored.bare
    if not own or not static:
        return incomplete("the bare classifier and the defence need finished attacks on the same samples")
    mine, theirs = surviving(own), surviving(static)
    low, high = pairs.bootstrap(mine, theirs)
    difference = float((mine - theirs).mean())
    said = f"{100 * difference:+.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
    numbers = {"gain": difference, "low": low, "high": high}
    return warn(said, **numbers) if low <= 0 else passed(said, **numbers)


@check("C4", "ablation", of=premises.purifying, on=premises.stored)
def ablation(case: Case) -> Judgement:
    """Of the bare classifier always, and of every defence that this one declares as itself with parts left out.

    Needs: the bare classifier and every defence declared as an ablation, on the same samples
    Formula: paired differences of the worst cases, 95 % intervals
    Threshold: any missing: INCOMPLETE
    Finding: nobody measured what each part of the defence contributes
    Source: Carlini et al. 2019; Tramèr et al. 2020
    """
    stored = case.stored
    parts = {"the bare classifier": stored.bare}
    for name in case.subject.ablations:
        named = [c for c in stored.others if c.cell.defense.name == name]
        parts[name] = stored.comparable([c for c in named if c.cell.training_seed == _seed(case)])
    mine = surviving(stored.finished)
    said, numbers = [], {}
    for name, cells in parts.items():
        # A part that was trained several ways is as good as the best of them.
        variants = [
            [c for c in cells if c.cell.artifact == a] for a in dict.fromkeys(c.cell.artifact for c in cells)
        ]
        if not variants:
            continue
        theirs = max((surviving(variant) for variant in variants), key=lambda shares: float(shares.mean()))
        low, high = pairs.bootstrap(mine, theirs)
        numbers[name] = float((mine - theirs).mean())
        said.append(f"over {name} {100 * numbers[name]:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]")
    missing = [name for name in parts if name not in numbers]
    if missing:
        said.append(f"missing on these samples: {', '.join(missing)}")
        return incomplete("; ".join(said), **numbers)
    return passed("; ".join(said), **numbers)


@check("C5", "complementary attacks")
def complementary(case: Case) -> Judgement | None:
    """The published number is the worst case per sample, so nothing is wrong with it; it is not final either.

    Needs: flags of each finished attack
    Formula: lowest accuracy under a single attack − worst case
    Threshold: > 1 point: WARN
    Finding: attacks break different samples, so one more would lower the number
    Source: Carlini et al. 2019
    """
    cells = case.stored.finished
    if len(cells) < 2:
        return incomplete("at least two finished attacks are needed")
    single = min(float(c.outcome.robust.mean()) for c in cells)
    gap = single - float(surviving(cells).mean())
    said = f"{100 * gap:.1f} points below the best single attack, over {len(cells)} cells"
    return warn(said, gap=gap) if gap > limit.COMPLEMENTARY else passed(said, gap=gap)


def _trained_on_attacks(subject: Subject) -> bool:
    return any(name in subject.recipe for name in TRAINS_ON_ATTACKS)


@check("C6", "training attack = evaluation attack", of=_trained_on_attacks, on=premises.stored)
def other_attacks(case: Case) -> Judgement:
    """Read off the recipe: fields of a training attack mean FGSM or PGD.

    Needs: recipe, names of finished attacks
    Formula: evaluation attacks within the family the defence trains on
    Threshold: yes: WARN
    Finding: evaluated only with attacks of the kind it was trained on
    Source: Carlini et al. 2019
    """
    cells = case.stored.finished
    found = families(cells) - {"gradient of the cross-entropy", "transfer"}
    if not found and (unclear := undeclared(cells)):
        return incomplete(unclear)
    return passed(f"also {', '.join(sorted(found))}") if found else warn("gradients of the cross-entropy alone")


@check("C7", "steps and restarts", on=premises.stored)
def floors(case: Case) -> Judgement:
    """AutoAttack's members bring their own.

    Needs: settings of finished attacks
    Formula: PGD with at least 100 steps, or AutoAttack; at least 10 restarts, or targeted APGD
    Threshold: below: INCOMPLETE
    Finding: too few steps or starts
    Source: Carlini et al. 2019; AutoAttack
    """
    cells = case.stored.finished
    whole = [c for c in cells if c.cell.view.artifact == c.cell.artifact]
    natures = [c.cell.nature for c in whole if c.cell.nature and c.cell.nature.steps]
    steps = max((nature.steps for nature in natures), default=0)
    restarts = max((nature.restarts for nature in natures), default=0)
    targets = max((nature.targets for nature in natures), default=0)
    enough = steps >= limit.STEPS and (restarts >= limit.RESTARTS or targets >= limit.TARGETS)
    ran = ", ".join(sorted({c.cell.attack.name for c in whole})) or "nothing"
    said = f"{steps} steps, {restarts} starts and {targets} targets at most, {ran} on the defence itself"
    if enough:
        return passed(said)
    unclear = undeclared(whole)
    return incomplete(f"{said}; {unclear}" if unclear else said, steps=steps, restarts=restarts)


@check("C8", "black-box budget")
def queries(case: Case) -> Judgement | None:
    """AutoAttack includes 5,000.

    Needs: settings of score-based attacks
    Formula: queries
    Threshold: < 5,000: INCOMPLETE
    Finding: the black-box attack had too few queries
    Source: AutoAttack's Square
    """
    ran = [c.cell.nature.queries for c in case.stored.finished if c.cell.nature and c.cell.nature.queries]
    if not ran:
        return incomplete(undeclared(case.stored.finished) or "no score-based attack is finished")
    most = max(ran)
    said = f"{most} queries"
    return passed(said, queries=most) if most >= limit.SQUARE_QUERIES else incomplete(said, queries=most)


def _seed(case: Case) -> int:
    return case.stored.finished[0].cell.training_seed


CHECKS = (diversity, adaptive, gain, ablation, complementary, other_attacks, floors, queries)
