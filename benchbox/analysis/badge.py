"""What the audit says of a row, in a few words: its badge. From the stored record alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchbox.analysis.worth import sentences

#: From worst to best; "not audited" says nothing either way.
State = Literal["withdrawn", "masking", "weak attack", "warned", "incomplete", "pass", "not audited"]


@dataclass(frozen=True)
class Badge:
    """The worst an audit found.

    Attributes:
        state: `withdrawn`: an integrity check failed, the number is not ranked. `masking`: gradients are masked;
            the worst case over everything is ranked, and marked. `weak attack`: another B check failed.
            `warned`, `incomplete`: nothing failed, but some checks warn or lack their evidence.
        checks: Ids of the checks that put it there.
        counts: How many checks came to each verdict.
        sentences: What each check with a FAIL or a WARN saw, by its id.
        standing: What the number is worth today, as `worth` gives it.
    """

    state: State
    checks: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    sentences: Mapping[str, str] = field(default_factory=dict)
    standing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What sets the number, and what it would have been under weaker attacks."""
        return tuple(sentences(self.standing))

    @property
    def invalid(self) -> bool:
        """Whether the number is withdrawn."""
        return self.state == "withdrawn"

    @property
    def masked(self) -> bool:
        """Whether gradients are masked."""
        return self.state == "masking"

    @property
    def detail(self) -> str:
        """What was seen, one line a check: for a tooltip."""
        seen = [f"{check}: {sentence}" for check, sentence in self.sentences.items()]
        return "\n".join([*self.remarks, *seen]) or str(self)

    def __str__(self) -> str:
        if self.state == "incomplete":
            return f"incomplete ({len(self.checks)} checks)"
        name = f"{len(self.checks)} WARN" if self.state == "warned" else self.state
        return " ".join((name, *self.checks))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "state": self.state,
            "checks": list(self.checks),
            "counts": dict(self.counts),
            "sentences": dict(self.sentences),
            "remarks": list(self.remarks),
        }


NOT_AUDITED = Badge("not audited")


def badge(record: Mapping[str, Any] | None, standing: Mapping[str, Any] | None = None) -> Badge:
    """The badge of an audit's record.

    Args:
        record: None for a defence that was not audited.
        standing: What its number is worth today, as `worth` gives it; None where that is still what was recorded.
    """
    if record is None:
        return NOT_AUDITED
    standing = record.get("standing", {}) if standing is None else standing
    summary, findings = record["summary"], record.get("findings", ())

    def ids(verdict: str) -> list[str]:
        return [finding["check"] for finding in findings if finding["verdict"] == verdict]

    states: tuple[tuple[State, list[str]], ...] = (
        ("withdrawn", summary["integrity"]),
        ("masking", summary["masking"]),
        ("weak attack", summary["attack"]),
        ("warned", ids("WARN")),
        ("incomplete", ids("INCOMPLETE")),
    )
    state, checks = next(((state, found) for state, found in states if found), ("pass", []))
    told = {f["check"]: f["sentence"] for f in findings if f["verdict"] in ("FAIL", "WARN")}
    return Badge(state, tuple(checks), summary["counts"], told, standing)
