"""Trust checks: is a robustness number what it seems? Most published ones were not.

    findings = audit(stored, probes)

`stored` is what the store holds of a defence, `probes` what `benchbox.audit.probes.probe.probe` measured on it; a
check without its evidence is INCOMPLETE, never PASS. Nothing here imports torch but the probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchbox.audit.checks import attack as checks_attack
from benchbox.audit.checks import completeness as checks_completeness
from benchbox.audit.checks import integrity as checks_integrity
from benchbox.audit.checks import masking as checks_masking
from benchbox.audit.checks import premises
from benchbox.audit.checks import sameness as checks_sameness
from benchbox.audit.checks import statistics as checks_statistics
from benchbox.audit.evidence import Case, Probes, Stored, Subject
from benchbox.audit.probes.measurements import Effort
from benchbox.audit.verdict import Check, Finding, Verdict

#: Every check, A to D, in the order of their numbers.
CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (
            *checks_integrity.CHECKS,
            *checks_sameness.CHECKS,
            *checks_masking.CHECKS,
            *checks_attack.CHECKS,
            *checks_completeness.CHECKS,
            *checks_statistics.CHECKS,
        ),
        key=lambda check: (check.family, int(check.id[1:])),
    )
)


def audit(stored: Stored, probes: Probes | None = None) -> list[Finding]:
    """Run every check that applies.

    Args:
        stored: What the store holds.
        probes: What the probes measured; None leaves their checks INCOMPLETE.

    Returns:
        One finding for each check that applies to this defence, in the order of `CHECKS`.
    """
    case = Case(stored, probes)
    found = [(check, finding) for check in CHECKS if (finding := check(case)) is not None]
    return [premises.weighed(finding, check.on, case) for check, finding in found]


def check(id: str) -> Check:
    """A check by its id."""
    return next(one for one in CHECKS if one.id == id)


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """What a report has to know of an audit: counts, and what keeps a defence out of the ranking or marks it.

    Returns:
        `counts` by verdict; `integrity`: A-type checks that failed; `masking`: checks whose failure says that
        gradients are masked; `attack`: other B-type checks that failed, which speak against the attack.
    """
    failed = [finding.check for finding in findings if finding.verdict is Verdict.FAIL]
    return {
        "counts": {str(v): sum(finding.verdict is v for finding in findings) for v in Verdict},
        "integrity": [id for id in failed if id[0] == "A"],
        "masking": [id for id in failed if check(id).masking],
        "attack": [id for id in failed if id[0] == "B" and not check(id).masking],
    }


__all__ = [
    "CHECKS",
    "Case",
    "Check",
    "Effort",
    "Finding",
    "Probes",
    "Stored",
    "Subject",
    "Verdict",
    "audit",
    "check",
    "summary",
]
