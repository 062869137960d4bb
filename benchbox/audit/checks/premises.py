"""What a check presupposes: the defences it speaks of, and the evidence without which it is INCOMPLETE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchbox.audit.checks import thresholds as limit
from benchbox.audit.evidence import Case, Subject
from benchbox.audit.verdict import Finding, Verdict

NOTHING_STORED = "the store has no finished attack inside this ball; `benchbox run` fills it"
NOT_PROBED = "the probes were not run"
LEFT_OUT = "left out"
NONE_CORRECT = "no clean image is classified correctly, so there is nothing to break"
WITHOUT_GRADIENT = "autograd gives no gradient at all, so there is nothing to hold against one"
RESTLESS = "it does not even answer the same question twice the same way (A6), so nothing can be compared"


def deterministic(subject: Subject) -> bool:
    """Of defences that answer the same question the same way."""
    return not subject.randomized


def randomized(subject: Subject) -> bool:
    """Of defences that draw."""
    return subject.randomized


def purifying(subject: Subject) -> bool:
    """Of defences that build on a classifier, which can be measured without them."""
    return subject.purifies


def standing_in(subject: Subject) -> bool:
    """Of defences with a stand-in."""
    return bool(subject.stand_ins)


def stored(case: Case) -> str:
    """A finished attack."""
    return "" if case.stored.finished else NOTHING_STORED


def probed(case: Case) -> str:
    """The probes."""
    return "" if case.probes else NOT_PROBED


def correct(case: Case) -> str:
    """The probes, and a clean image that is classified correctly."""
    return probed(case) or ("" if case.probed.panel.correct.any() else NONE_CORRECT)


def settled(case: Case) -> str:
    """The probes, and the same answer to the same question."""
    return probed(case) or (RESTLESS if restless(case) else "")


def comparable(case: Case) -> str:
    """Likewise, or the same answer to every question but the very first."""
    missing = settled(case)
    return "" if missing == RESTLESS and case.probed.behaviour.first_differs else missing


def differentiable(case: Case) -> str:
    """A gradient of any kind, where it was probed: who has none masks none."""
    if case.probes is None:
        return ""
    slopes = case.probed.gradients
    return WITHOUT_GRADIENT if slopes.refused and set(slopes.zero) <= set(slopes.refused) else ""


def drawn(case: Case) -> str:
    """The probes of a randomised defence."""
    return "" if case.probes and case.probes.randomness else NOT_PROBED


def tried(probe: str) -> Callable[[Case], str]:
    """A probe that the effort may leave out, named by its field there."""

    def lacking(case: Case) -> str:
        if not case.probes or getattr(case.probes.effort, probe):
            return ""
        return case.probes.left_out.get(probe, LEFT_OUT)

    return lacking


#: The premises of whoever judges by what the probes measured.
PROBES = (probed, correct, settled, comparable, drawn)


def weighed(finding: Finding, on: Sequence[Callable[[Case], str]], case: Case) -> Finding:
    """What a check found; a PASS by probes of a handful of images, which find nothing rare, is INCOMPLETE."""
    few = case.probes.panel.lacking.get("few", "") if case.probes else ""
    if not few or finding.verdict is not Verdict.PASS or not any(premise in PROBES for premise in on):
        return finding
    return replace(finding, verdict=Verdict.INCOMPLETE, sentence=f"{finding.sentence}, but {few}")


def restless(case: Case) -> bool:
    """Whether answers change although nothing else does."""
    seen = case.probed.behaviour
    return bool(seen.relabelled.any() or (seen.repeat_gap > limit.REPEAT_GAP).any())
