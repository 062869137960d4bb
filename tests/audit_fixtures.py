"""Writes docs/audit-fixtures.md (what every check says of broken defences) and the lists in docs/evaluation.md.

python tests/audit_fixtures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from broken_defenses import BROKEN, HONEST
from cheating_defenses import CHEATS, PLAIN
from honest_defenses import HONEST as ODD
from listening_defenses import ANSWERING
from outside_defenses import OUTSIDE
from reaching_defenses import NAMED
from test_audit import DOCS, EFFORT, findings, line
from test_audit_cheats import findings as cheating
from test_listeners import findings as listening
from test_outside import findings as outside
from test_reaching import findings as reaching

from benchbox.audit import CHECKS
from benchbox.audit.checks.thresholds import table

SIGN = {"FAIL": "**FAIL**", "WARN": "warn", "INCOMPLETE": "?", "PASS": "pass"}
FAMILIES = {
    "A": "Integrity: is the number what it says it is? A FAIL keeps the defence out of the ranking.",
    "B": "Masking and weak attacks. Checks marked ● say, when they fail, that gradients are masked.",
    "C": "Completeness: was everything tried?",
    "D": "Statistics: do the numbers carry the claim?",
}
BEGIN, END = "<!-- written by tests/audit_fixtures.py -->", "<!-- end -->"


def fixtures() -> str:
    """The table broken defences × checks."""
    results = {cls: findings(cls) for cls in (*HONEST, *BROKEN)}
    results |= {cls: cheating(cls) for cls in (*PLAIN, *ODD, *CHEATS)}
    results |= {cls: listening(cls) for cls in ANSWERING}
    results |= {cls: reaching(cls) for cls in NAMED}
    results |= {cls: outside(cls) for cls in OUTSIDE}
    ids = [c.id for c in CHECKS if c.family in "AB" and any(c.id in found for found in results.values())]
    # Without a store some checks have nothing to read on any fixture.
    ids = [i for i in ids if any(f[i].verdict != "INCOMPLETE" for f in results.values() if i in f)]
    lines = [
        "# What the audit says of defences that are broken on purpose",
        "",
        f"`python tests/audit_fixtures.py` writes this file. {EFFORT.samples} digits, {EFFORT.steps} steps, "
        f"{EFFORT.random_points} random points: less than the checks ask for, so that what is fine is often “?” "
        "(INCOMPLETE). The first three are honest, and so are those from “linear” to “odd-norm”; "
        "those after them tell scoring from attacking or know the test images, and from “hard-answers” on "
        "they were written without a look at the checks. A blank means: does not apply.",
        "",
        f"| defence | {' | '.join(ids)} |",
        "| :--- " * (len(ids) + 1) + "|",
    ]
    for cls, found in results.items():
        cells = [SIGN[str(found[i].verdict)] if i in found else "" for i in ids]
        lines.append(f"| {cls.card.name} | {' | '.join(cells)} |")
    lines += ["", "## The mechanisms", ""]
    for cls, found in results.items():
        lines.append(f"- **{cls.card.name}**: {' '.join(cls.__doc__.split())}")
        lines += [
            f"  - {f.check} {f.verdict}: {f.sentence}"
            for f in found.values()
            if str(f.verdict) in ("FAIL", "WARN")
        ]
    return "\n".join(lines) + "\n"


def lists() -> str:
    """One line a check, one line a threshold."""
    lines = []
    for family, text in FAMILIES.items():
        lines += ["", f"### {family}", "", text, "", "| id | check | what is computed | verdict | source |"]
        lines.append("| --- " * 5 + "|")
        lines += [line(check) for check in CHECKS if check.family == family]
    masking = ", ".join(check.id for check in CHECKS if check.masking)
    lines += ["", f"● {masking}", "", "### Thresholds", "", "| name | value | reason |", "| --- | ---: | --- |"]
    lines += [f"| `{name}` | {float(value):.6g} | {value.reason} |" for name, value in table().items()]
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    (DOCS / "audit-fixtures.md").write_text(fixtures())
    page = DOCS / "evaluation.md"
    head, _, rest = page.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    page.write_text(f"{head}{BEGIN}\n{lists()}\n{END}{tail}")


if __name__ == "__main__":
    main()
