"""The control of a randomised defence: on images that nobody attacked it must be as accurate as it is clean.

N. Carlini, A. Athalye, N. Papernot, et al. On Evaluating Adversarial Robustness. arXiv 1902.06705 (2019): as
epsilon goes to 0, the robust accuracy goes to the clean one. A scoring that finds less, or more, measures
something other than the attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchbox.analysis import pairs
from benchbox.analysis.score import BOOTSTRAP_SEED, Measurement, Score, union
from benchbox.analysis.worst_case import adversarial_correct, clean_correct
from benchbox.domain import Evidence

#: Two sets of draws that differ by chance alone fail the control this often: once in a thousand rows. At the usual
#: 5 % every twentieth honest defence would be withheld.
LEVEL = 0.999

Answer = Literal["agrees", "differs", "unfinished", "not run"]


@dataclass(frozen=True)
class Control:
    """What the null attack says of a row.

    Attributes:
        verdict: `agrees` is the only one that lets the row be ranked.
        measurement: The null cell; None if there is none.
        clean: The clean accuracy it is held against; None if there is nothing to hold against it.
        difference: Null minus clean, in points.
        low: Lower end of its 95 % interval, by a paired bootstrap over samples.
        high: Upper end.
        p: Of no difference.
        test: What p comes from.
    """

    verdict: Answer
    measurement: Measurement | None = None
    clean: Score | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    test: str = ""


def hold(measurements: Sequence[Measurement], reference: Evidence | None, *, randomized: bool) -> Control | None:
    """Hold the null attack of a row against its clean accuracy.

    Equal means: on the same images, in other draws, the two differ by no more than chance explains. Swapping null
    and clean draws on any image would then change nothing, so the sign-flip test is exact, whatever the number of
    images; in other words, 0 lies in the 99.9 % interval that inverting the test gives. A deterministic defence
    has no such excuse: one image on which its null cell differs from its own clean predictions is enough.

    Args:
        measurements: The null cells of the row, those with most scoring draws first; the first finished counts.
        reference: The finished cell whose clean predictions the row prints.
        randomized: Whether the defence is; only then is a missing control worth a word.

    Returns:
        None for a deterministic defence that nobody ran the null attack on.
    """
    finished = [m for m in measurements if m.status == "done"]
    if not finished or reference is None:
        if not randomized:
            return None
        return Control("unfinished", measurements[0]) if measurements else Control("not run")
    null = adversarial_correct(finished[0].evidence)
    clean = clean_correct(reference if randomized else finished[0].evidence)
    shares = null.mean(axis=1), clean.mean(axis=1)
    test = pairs.significance(*shares, BOOTSTRAP_SEED)
    interval = pairs.bootstrap(*shares, BOOTSTRAP_SEED)
    differs = test.p < 1 - LEVEL if randomized else bool((shares[0] != shares[1]).any())
    return Control(
        "differs" if differs else "agrees",
        finished[0],
        union([clean]),
        100 * float((shares[0] - shares[1]).mean()),
        100 * interval.low,
        100 * interval.high,
        test.p,
        test.test,
    )
