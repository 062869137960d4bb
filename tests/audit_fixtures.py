"""Writes docs/audit-fixtures.md (what every check says of the fixtures) and the lists in docs/evaluation.md.

    python tests/audit_fixtures.py                    # everything, an hour of a processor
    python tests/audit_fixtures.py --kept DIR --half 0 &
    python tests/audit_fixtures.py --kept DIR --half 1; wait; python tests/audit_fixtures.py --kept DIR

What was found of a fixture is kept in DIR, and not asked for again: the last command computes what is missing, and
writes. A line on the terminal tells each fixture that is done, and its seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import broken_defenses
import cheating_defenses
import honest_defenses
import listening_defenses
import odd_defenses
import outside_defenses
import outside_memories
import prying_defenses
import reaching_defenses
import test_audit
import test_audit_cheats
import test_listeners
import test_outside
import test_prying
import test_reaching
import torch

from benchbox import Defense
from benchbox.audit import CHECKS, Effort
from benchbox.audit.checks.thresholds import table

DOCS = test_audit.DOCS
SIGN = {"FAIL": "**FAIL**", "WARN": "warn", "INCOMPLETE": "?", "PASS": "pass"}
FAMILIES = {
    "A": "Integrity: is the number what it says it is? A FAIL keeps the defence out of the ranking.",
    "B": "Masking and weak attacks. Checks marked ● say, when they fail, that gradients are masked.",
    "C": "Completeness: was everything tried?",
    "D": "Statistics: do the numbers carry the claim?",
}
BEGIN, END = "<!-- written by tests/audit_fixtures.py -->", "<!-- end -->"
#: Of one fixture: by check, what was found.
Found = Mapping[str, Mapping[str, Any]]


class Group(NamedTuple):
    """Fixtures of one kind, and who audits them with what effort."""

    title: str
    text: str
    audited: tuple[tuple[Callable[[type[Defense]], Mapping[str, Any]], tuple[type[Defense], ...]], ...]

    @property
    def classes(self) -> tuple[type[Defense], ...]:
        """All of them."""
        return tuple(cls for _, classes in self.audited for cls in classes)


def _said(effort: Effort) -> str:
    return f"{effort.steps} steps, {effort.random_points} random points and {effort.queries} queries"


HONEST = Group(
    "Honest",
    "None may fail anything, and none may be called masked.",
    (
        (test_audit.findings, broken_defenses.HONEST),
        (
            test_audit_cheats.findings,
            (
                *cheating_defenses.PLAIN,
                *honest_defenses.HONEST,
                *odd_defenses.ODD,
                test_audit_cheats.Darkest,
            ),
        ),
    ),
)
GROUPS = (
    HONEST,
    Group(
        "Broken",
        "Faults and masked gradients as papers have published them.",
        ((test_audit.findings, broken_defenses.BROKEN),),
    ),
    Group(
        "Telling scoring from attacking, or knowing the images",
        "They would be right where they are scored, and lead astray whoever attacks.",
        (
            (test_audit_cheats.findings, cheating_defenses.CHEATS),
            (test_listeners.findings, listening_defenses.ANSWERING),
            (test_reaching.findings, reaching_defenses.NAMED),
            (test_prying.findings, prying_defenses.ANSWERING),
        ),
    ),
    Group(
        "By somebody who had not read the checks",
        "Written without a look at them, and added as they are.",
        ((test_outside.findings, outside_defenses.OUTSIDE),),
    ),
)
#: What is audited by no check, and why.
NOT_AUDITED: Mapping[str, tuple[str, tuple[type[Defense], ...]]] = {
    "Refused": (
        "While they are built or asked, so that no audit sees them; what they left or replaced is put back.",
        (
            *listening_defenses.LEAVING, *reaching_defenses.REFUSED, *prying_defenses.LEFT,
            *prying_defenses.EDITED,
        ),
    ),
    "In vain": (
        "What they look for is not to be seen: they fall as the network they are made of does.",
        (
            cheating_defenses.CallStack, cheating_defenses.Seeds, *listening_defenses.LOOKING,
            listening_defenses.Finaliser, reaching_defenses.Nodes, *reaching_defenses.NOTICING,
        ),
    ),
    "Read, and not asked": (
        "A16 knows the names in its code; a dump in the middle of a switch of stacks can end the process.",
        (prying_defenses.Watchdog,),
    ),
}  # fmt: skip
#: The checks that have to fail, and what their sentences have to name.
EXPECTED: dict[type[Defense], dict[str, str]] = {
    cls: {check: "" for check, verdict in checks.items() if verdict == "FAIL"}
    for cls, checks in test_audit.EXPECTED.items()
}
for named in (test_audit_cheats, test_listeners, test_reaching, test_prying, test_outside):
    EXPECTED |= {cls: {check: words} for cls, (check, words) in named.EXPECTED.items()}


def exported() -> Iterator[type[Defense]]:
    """Every fixture of the modules of fixtures; what has no card of its own is what others are made of."""
    for module in (
        broken_defenses, cheating_defenses, honest_defenses, listening_defenses, odd_defenses, outside_defenses,
        outside_memories, prying_defenses, reaching_defenses,
    ):  # fmt: skip
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, Defense) and "card" in vars(cls):
                yield cls


def measured(kept: Path, half: int | None) -> dict[str, Found]:
    """By the name of its card, what is found of each fixture, or of every second one."""
    results = {}
    every = [(audited, cls) for group in GROUPS for audited, classes in group.audited for cls in classes]
    for number, (audited, cls) in enumerate(every):
        if half is not None and number % 2 != half:
            continue
        file = kept / f"{cls.card.name}.json"
        if not file.exists():
            begun = time.perf_counter()
            found = {id: finding.as_dict() for id, finding in audited(cls).items()}
            file.write_text(json.dumps(found))
            took = time.perf_counter() - begun
            sys.stderr.write(f"{number + 1} of {len(every)}: {cls.card.name}, {took:.0f} s\n")
        results[cls.card.name] = json.loads(file.read_text())
    return results


def page(results: Mapping[str, Found]) -> str:
    """The page: groups × checks, then each mechanism and what was said of it."""
    ids = [c.id for c in CHECKS if c.family in "AB" and any(c.id in found for found in results.values())]
    # Without a store some checks have nothing to read on any fixture.
    ids = [i for i in ids if any(f[i]["verdict"] != "INCOMPLETE" for f in results.values() if i in f)]
    lines = [
        "# What the audit says of defences that are broken on purpose",
        "",
        "`python tests/audit_fixtures.py` writes this file. Each is audited with the effort of its test, less "
        "than the checks ask for, so that what is fine is often “?” (INCOMPLETE): "
        f"{_said(test_audit.EFFORT)} of {test_audit.EFFORT.samples} digits for the broken ones and the first "
        f"three honest ones, {_said(test_audit_cheats.EFFORT)} or fewer of 20 to 40 digits for the others. A "
        "blank means: does not apply. A check in bold letters has to name the mechanism, in words that a test "
        "looks for; where none is, the probes break the defence, or any of several checks tells.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group.title}", "", group.text, ""]
        lines += [f"| defence | {' | '.join(ids)} |", "| :--- " * (len(ids) + 1) + "|"]
        for cls in group.classes:
            found = results[cls.card.name]
            cells = [SIGN[found[i]["verdict"]] if i in found else "" for i in ids]
            lines.append(f"| {cls.card.name} | {' | '.join(cells)} |")
    for title, (text, classes) in NOT_AUDITED.items():
        lines += ["", f"## {title}", "", text, ""]
        lines += [f"- **{cls.card.name}**: {_mechanism(cls)}" for cls in classes]
    lines += ["", "## The mechanisms, and what is said of them"]
    for group in GROUPS:
        lines += ["", f"### {group.title}", ""]
        for cls in group.classes:
            lines.append(f"- **{cls.card.name}**: {_mechanism(cls)}")
            lines += [
                f"  - {f'**{i}**' if i in EXPECTED.get(cls, ()) else i} {f['verdict']}: {f['sentence']}"
                for i, f in results[cls.card.name].items()
                if f["verdict"] in ("FAIL", "WARN")
            ]
    return "\n".join(lines) + "\n"


def _mechanism(cls: type[Defense]) -> str:
    return " ".join((cls.__doc__ or "").split())


def lists() -> str:
    """One line a check, one line a threshold."""
    lines = []
    for family, text in FAMILIES.items():
        lines += ["", f"### {family}", "", text, "", "| id | check | what is computed | verdict | source |"]
        lines.append("| --- " * 5 + "|")
        lines += [test_audit.line(check) for check in CHECKS if check.family == family]
    masking = ", ".join(check.id for check in CHECKS if check.masking)
    lines += ["", f"● {masking}", "", "### Thresholds", "", "| name | value | reason |", "| --- | ---: | --- |"]
    lines += [f"| `{name}` | {float(value):.6g} | {value.reason} |" for name, value in table().items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, and write unless it is a half only."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kept", type=Path, metavar="DIR", help="where findings are kept, and read again")
    words.add_argument("--half", type=int, choices=(0, 1), help="only every second fixture, and no page")
    asked = words.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kept = asked.kept or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        results = measured(kept, asked.half)
    for cls in (outside_memories.FileMemory, prying_defenses.PooledMemory):
        cls.path.unlink(missing_ok=True)
    if asked.half is not None:
        return
    (DOCS / "audit-fixtures.md").write_text(page(results))
    evaluation = DOCS / "evaluation.md"
    head, _, rest = evaluation.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    evaluation.write_text(f"{head}{BEGIN}\n{lists()}\n{END}{tail}")


if __name__ == "__main__":
    main()
