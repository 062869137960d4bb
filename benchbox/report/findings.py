"""An audit as a document, from its stored record alone: every check, and what the claim is worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchbox.analysis.worth import sentences
from benchbox.domain import ThreatModel
from benchbox.report.document import Badge, Column, Document, Section, Text, Tone, added, grid, unrecorded

_TONE: Mapping[str, Tone] = {"FAIL": "bad", "WARN": "doubt", "INCOMPLETE": "faint", "PASS": "good"}
#: Samples that are named; the count says how many more there are.
_NAMED = 5
#: Columns of the long form. `measure` is finding, robust (the worst case) or alone (what one access would report).
FIELDS = (
    *("dataset", "samples_digest", "norm", "epsilon", "defense", "artifact", "measure"),
    *("check", "name", "verdict", "sentence", "samples", "count", "numbers", "access", "percent", "low", "high"),
)

Finding = Mapping[str, Any]


def columns(names: Mapping[str, str]) -> list[Column[Finding]]:
    """The columns of an audit. One more is one entry here, for every format.

    Args:
        names: A few words on each check, by its id.
    """
    return [
        Column("check", "", lambda finding: Text(finding["check"]), "left", heads=True, recorded=True),
        Column("name", "check", lambda finding: Text(names.get(finding["check"], "")), "left", recorded=True),
        Column("verdict", "verdict", _verdict, "left", recorded=True),
        Column("seen", "what was seen", lambda f: Text(f["sentence"]), "left", paragraph=80, recorded=True),
        Column("samples", "samples", _samples, "left", drops=1, paragraph=20, recorded=True),
    ]


def document(record: Mapping[str, Any], names: Mapping[str, str]) -> Document:
    """The document of one audit.

    Args:
        record: As `benchbox audit` stores it.
        names: A few words on each check, by its id.
    """
    own, found, standing = columns(names), record["findings"], record.get("standing", {})
    said = [*sentences(standing), f"Checks: {headline(record['summary'])}."]
    section = Section(title(record), [grid(own, found)], sentences=said, verdict=claim(record, standing))
    return Document(
        "benchbox audit",
        [section],
        lambda: {**record, "findings": [{**finding, **added(own, finding)} for finding in found]},
        [*FIELDS, *(column.key for column in unrecorded(own))],
        lambda: _lines(record, names, own),
    )


def title(record: Mapping[str, Any]) -> str:
    """Which defence, on what."""
    where = f"{record['samples']['dataset']}, {ThreatModel(**record['threat'])}"
    return f"Audit of {record['defense']} ({record['artifact'][:12]}) on {where}"


def headline(summary: Mapping[str, Any]) -> str:
    """One sentence for all checks."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["counts"].items())
    said = [
        (summary["integrity"], "not to be ranked: integrity"),
        ([id for id in summary["masking"] if id[0] != "A"], "gradients are masked:"),
        (summary["attack"], "the attack is too weak:"),
    ]
    parts = [f"{text} {', '.join(ids)}" for ids, text in said if ids]
    return f"{counts}; {'; '.join(parts)}" if parts else f"{counts}; no check failed"


def claim(record: Mapping[str, Any], standing: Mapping[str, Any]) -> Badge:
    """What the defence is worth after all: the verdict on its claim, not on the checks.

    Args:
        record: As `benchbox audit` stores it.
        standing: What its number is worth, as `worth` gives it: then, or today.
    """
    summary = record["summary"]
    if summary["integrity"]:
        return Badge(f"withdrawn: the number is not what it says ({', '.join(summary['integrity'])})", tone="bad")
    if "robust" not in standing:
        return Badge("no number yet: nothing finished is stored", tone="faint")
    robust = standing["robust"]["percent"]
    doubts = [(summary["masking"], "gradients are masked"), (summary["attack"], "the attack is too weak")]
    least = [f"{text} ({', '.join(ids)})" for ids, text in doubts if ids]
    # Nothing is worth less than 0, so there is nothing to doubt.
    doubted = bool(least) and robust > 0
    parts = [f"worth {'at most ' if doubted else ''}{robust:.1f} %", *(least if doubted else [])]
    best = max(standing["weaker"], key=lambda other: float(other["percent"]), default=None)
    if best and f"{best['percent']:.1f}" != f"{robust:.1f}":
        parts.append(f"its {best['percent']:.1f} % are {best['route']}")
    return Badge("; ".join(parts), tone="bad" if doubted or robust == 0 else "doubt" if parts[1:] else "")


def _lines(
    record: Mapping[str, Any], names: Mapping[str, str], own: Sequence[Column[Finding]]
) -> Iterator[dict[str, Any]]:
    shared = {
        "dataset": record["samples"]["dataset"],
        "samples_digest": record["samples"]["digest"],
        **record["threat"],
        "defense": record["defense"],
        "artifact": record["artifact"],
    }
    for finding in record["findings"]:
        facts = {key: finding[key] for key in ("check", "verdict", "sentence", "count")}
        more = {
            "measure": "finding",
            "name": names.get(finding["check"], ""),
            "samples": " ".join(map(str, finding["samples"])),
            "numbers": json.dumps(finding["numbers"]),
        }
        yield shared | facts | more | added(own, finding)
    standing = record.get("standing", {})
    if "robust" in standing:
        by = standing["set_by"]["through"]
        yield {
            **shared,
            "measure": "robust",
            "access": by,
            "verdict": claim(record, standing).text,
            **standing["robust"],
        }
    for other in standing.get("weaker", ()):
        yield shared | {"measure": "alone", "access": other["route"], "percent": other["percent"]}


def _verdict(finding: Finding) -> Badge:
    return Badge(finding["verdict"], tone=_TONE[finding["verdict"]], strong=finding["verdict"] == "FAIL")


def _samples(finding: Finding) -> Text:
    named: Sequence[int] = finding["samples"][:_NAMED]
    more = finding["count"] - len(named)
    return Text(", ".join(map(str, named)) + (f" and {more} more" if named and more > 0 else ""))
