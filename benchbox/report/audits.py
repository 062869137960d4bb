"""What the audits of some defences found, beside one another, as a document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchbox.analysis.score import WITHHELD
from benchbox.analysis.table import Row, Table
from benchbox.domain import ThreatModel
from benchbox.report.document import Badge, Column, Document, Number, Section, Text, added, grid, unrecorded
from benchbox.report.findings import claim

#: Verdicts whose checks are named, from worst to best; of those that passed the number will do.
NAMED = ("FAIL", "WARN", "INCOMPLETE")
#: Columns of the long form.
FIELDS = (
    "dataset",
    "norm",
    "epsilon",
    "defense",
    "artifact",
    "images",
    "steps",
    "eot",
    *NAMED,
    "PASS",
    "comes_to",
    "written_by",
)


class Audit(NamedTuple):
    """The record of an audit, and the row of its defence as the leaderboard has it today."""

    row: Row
    record: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What the tables call the defence."""
        return self.row.label

    @property
    def comes_to(self) -> Badge:
        """What the claim is worth: more may have been attacked since the audit."""
        if self.row.withheld:
            return Badge(f"{WITHHELD}: the control contradicts the clean accuracy", tone="bad")
        return claim(self.record, self.row.badge.standing if self.row.robust is not None else {})

    @property
    def written_by(self) -> str:
        """The code that judged and worded the findings, and when, as far as it was recorded."""
        made = self.record.get("provenance", {})
        version, commit = (made.get("packages") or {}).get("benchbox"), made.get("commit")
        code = [
            f"benchbox {version}" if version else "unknown code",
            *([f"commit {commit[:12]}"] if commit else []),
        ]
        return ", ".join([*code, *([self.record["date"]] if "date" in self.record else [])])

    def checks(self, verdict: str) -> list[str]:
        """Ids of the checks with this verdict."""
        return [found["check"] for found in self.record["findings"] if found["verdict"] == verdict]


def document(
    tables: Sequence[Table], audits: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> Document:
    """A section for each data set and ball, a row for each audited defence.

    Args:
        tables: Say which defences there are, and what they are called.
        audits: Records of `benchbox audit` by digest of the weights.
        names: A few words on each check, by its id.
    """
    groups = _grouped(tables, audits)
    every = [audit for group in groups.values() for audit in group]
    return Document(
        "benchbox audits",
        [_section(group, names) for group in groups.values()] or [_empty()],
        lambda: {"audits": [{"label": a.label, "comes_to": a.comes_to.text, **a.record} for a in every]},
        [*FIELDS, *(column.key for column in unrecorded(columns()))],
        lambda: map(_line, every),
    )


def columns() -> list[Column[Audit]]:
    """The columns. One more is one entry here, for every format."""
    return [
        Column("defense", "defence", lambda audit: Text(audit.label), "left", heads=True, recorded=True),
        *(
            Column(key, title, _effort(key), recorded=True)
            for key, title in (("samples", "images"), ("steps", "steps"), ("eot", "draws a gradient"))
        ),
        *(Column(verdict, verdict, _named(verdict), "left", paragraph=30, recorded=True) for verdict in NAMED),
        Column("PASS", "PASS", lambda audit: _number(len(audit.checks("PASS"))), recorded=True),
        Column(
            "comes_to",
            "what the claim is worth",
            lambda audit: Text(audit.comes_to.text),
            "left",
            paragraph=40,
            recorded=True,
        ),
    ]


def _grouped(
    tables: Sequence[Table], audits: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, ThreatModel], list[Audit]]:
    """By data set and ball, each audit once however many lists of images its defence has rows on."""
    groups: dict[tuple[str, ThreatModel], dict[str, Audit]] = {}
    for table in tables:
        for row in table.rows:
            record = audits.get(row.artifact)
            if record and ThreatModel(**record["threat"]) == table.threat:
                group = groups.setdefault((table.samples.dataset, table.threat), {})
                group.setdefault(row.artifact, Audit(row, record))
    return {of: list(group.values()) for of, group in groups.items()}


def _section(audits: Sequence[Audit], names: Mapping[str, str]) -> Section:
    record = audits[0].record
    return Section(
        f"Audits on {record['samples']['dataset']}, {ThreatModel(**record['threat'])}",
        [grid(columns(), audits)],
        sentences=[line for audit in audits for line in _doubts(audit, names)],
        remarks=["INCOMPLETE: less was measured than the check asks for, so it says nothing.", _quoted(audits)],
    )


def _doubts(audit: Audit, names: Mapping[str, str]) -> Iterator[str]:
    """What failed or warns, in words."""
    for verdict in NAMED[:2]:
        for found in audit.record["findings"]:
            if found["verdict"] == verdict:
                name = names.get(found["check"], "")
                yield f"{audit.label}, {verdict} {found['check']}, {name}: {found['sentence']}."


def _quoted(audits: Sequence[Audit]) -> str:
    """Whose words and rules these are: checks are mended, and stored findings are not judged anew."""
    by: dict[str, list[str]] = defaultdict(list)
    for audit in audits:
        by[audit.written_by].append(audit.label)
    written = "; ".join(f"{', '.join(labels)} by {who}" for who, labels in by.items())
    return (
        "Findings are quoted as the audit of its day judged and worded them, and today's checks may differ: "
        f"{written}. What the claim is worth is today's."
    )


def _empty() -> Section:
    return Section("No audit", sentences=["Nothing here was audited inside its ball; `benchbox audit` does."])


def _line(audit: Audit) -> dict[str, Any]:
    record = audit.record
    return {
        "dataset": record["samples"]["dataset"],
        **record["threat"],
        "defense": audit.label,
        "artifact": record["artifact"],
        "images": record["effort"]["samples"],
        "steps": record["effort"]["steps"],
        "eot": record["effort"]["eot"],
        **{verdict: " ".join(audit.checks(verdict)) for verdict in NAMED},
        "PASS": len(audit.checks("PASS")),
        "comes_to": audit.comes_to.text,
        "written_by": audit.written_by,
        **added(columns(), audit),
    }


def _effort(key: str) -> Any:
    return lambda audit: _number(audit.record["effort"][key])


def _named(verdict: str) -> Any:
    return lambda audit: Text(" ".join(audit.checks(verdict)) or "none")


def _number(value: int) -> Number:
    return Number(str(value), exact=value)
