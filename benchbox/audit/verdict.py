"""What a trust check is, and what it finds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from benchbox.audit.evidence import Case, Subject

#: Sample numbers a finding carries as evidence; the count says how many there are.
SHOWN = 20


class Verdict(StrEnum):
    """From worst to best. Missing evidence is never a pass."""

    FAIL = "FAIL"
    WARN = "WARN"
    INCOMPLETE = "INCOMPLETE"
    PASS = "PASS"


class Judgement(NamedTuple):
    """What a check's function returns.

    Attributes:
        verdict: The outcome.
        said: What was seen, with its numbers; half a sentence.
        numbers: The same numbers, for machines.
        samples: Positions in the data set of the samples that speak against the defence.
    """

    verdict: Verdict
    said: str
    numbers: Mapping[str, float] = {}
    samples: Sequence[int] = ()


@dataclass(frozen=True)
class Finding:
    """The outcome of one check on one defence.

    Attributes:
        check: Its id, such as "B1".
        verdict: The outcome.
        sentence: What a reader is told.
        numbers: The measured numbers.
        samples: Positions in the data set of up to `SHOWN` samples that show it.
        count: How many such samples there are.
    """

    check: str
    verdict: Verdict
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[int, ...] = ()
    count: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "check": self.check,
            "verdict": str(self.verdict),
            "sentence": self.sentence,
            "numbers": {name: _plain(value) for name, value in self.numbers.items()},
            "samples": list(self.samples),
            "count": self.count,
        }


@dataclass(frozen=True, kw_only=True)
class Check:
    """One trust check.

    Attributes:
        id: Its family's letter and a number: "B1".
        name: A few words.
        needs: The evidence it reads.
        formula: What is computed.
        threshold: When it warns or fails.
        finding: What a reader sees when it does.
        source: Who proposed it; "[P]" where benchbox did.
        masking: Whether a FAIL says that the defence hides from the attack, rather than that a number is
            wrong or an attack is weak.
        of: The defences it speaks of.
        on: What says which evidence is missing, if any is; asked in this order before the judge.
        judge: The function; None when the check does not apply after all.
    """

    id: str
    name: str
    needs: str
    formula: str
    threshold: str
    finding: str
    source: str
    masking: bool
    of: Callable[[Subject], bool]
    on: tuple[Callable[[Case], str], ...]
    judge: Callable[[Case], Judgement | None]

    @property
    def family(self) -> str:
        """A integrity, B masking and attack failure, C completeness, D statistics."""
        return self.id[0]

    def __call__(self, case: Case) -> Finding | None:
        """The finding, or None when the check does not apply."""
        if not self.of(case.subject):
            return None
        missing = next(filter(None, (lack(case) for lack in self.on)), "")
        found = incomplete(missing) if missing else self.judge(case)
        if found is None:
            return None
        bad = found.verdict in (Verdict.FAIL, Verdict.WARN)
        sentence = f"{self.finding}: {found.said}" if bad else found.said
        ids = tuple(int(i) for i in found.samples)
        return Finding(self.id, found.verdict, sentence, dict(found.numbers), ids[:SHOWN], len(ids))


def check(
    id: str,
    name: str,
    *,
    of: Callable[[Subject], bool] = lambda subject: True,
    on: Callable[[Case], str] | tuple[Callable[[Case], str], ...] = (),
    masking: bool = False,
) -> Callable[[Callable[[Case], Judgement | None]], Check]:
    """Declare a check above the function that judges.

    The last paragraph of the function's docstring says the rest, a line each: `Needs: …`, `Formula: …`,
    `Threshold: …`, `Finding: …`, `Source: …`.
    """
    needed = on if isinstance(on, tuple) else (on,)

    def declare(judge: Callable[[Case], Judgement | None]) -> Check:
        said = _last_paragraph(judge.__doc__ or "")
        return Check(id=id, name=name, of=of, on=needed, masking=masking, judge=judge, **said)

    return declare


def _last_paragraph(docstring: str) -> dict[str, str]:
    """`Needs: names of attacks` as `{"needs": "names of attacks"}`; lines that are indented continue one."""
    lines = re.split(r"\n(?=\S)", inspect.cleandoc(docstring).rpartition("\n\n")[2])
    parts = (line.partition(": ") for line in lines)
    return {word.lower(): " ".join(text.split()) for word, _, text in parts}


def fail(said: str, samples: Sequence[int] = (), /, **numbers: float) -> Judgement:
    """The number is withdrawn, or the defence is marked."""
    return Judgement(Verdict.FAIL, said, numbers, samples)


def warn(said: str, samples: Sequence[int] = (), /, **numbers: float) -> Judgement:
    """The number stands, with a flag."""
    return Judgement(Verdict.WARN, said, numbers, samples)


def incomplete(said: str, /, **numbers: float) -> Judgement:
    """Evidence is missing."""
    return Judgement(Verdict.INCOMPLETE, said, numbers)


def passed(said: str, lacking: str = "", /, **numbers: float) -> Judgement:
    """Nothing speaks against the defence; INCOMPLETE if the evidence was less than the check asks for."""
    if lacking:
        return Judgement(Verdict.INCOMPLETE, f"{said}, but {lacking}", numbers)
    return Judgement(Verdict.PASS, said, numbers)


def worst(judgements: Sequence[Judgement]) -> Judgement:
    """The worst judgement of the same check on several bodies of evidence.

    A pass on one body outweighs what another is lacking.
    """
    order = (Verdict.FAIL, Verdict.WARN, Verdict.PASS, Verdict.INCOMPLETE)
    return min(judgements, key=lambda judgement: order.index(judgement.verdict))


def _plain(value: float) -> float | int:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, int) else round(float(value), 6)
