"""The leaderboard as a document: who stands where, then every attack, access by access."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from benchbox.analysis.badge import State
from benchbox.analysis.certificate import REFUTED
from benchbox.analysis.score import WITHHELD, Entry, Status
from benchbox.analysis.table import Column as AttackColumn
from benchbox.analysis.table import Row, Table, Versus
from benchbox.domain import Access
from benchbox.report import leaderboard_record as record
from benchbox.report.citations import Citations
from benchbox.report.document import Badge, Cited, Column, Document, Draw, Number, Place, Section, Text, Tone, grid
from benchbox.report.remarks import brief, noted, of_certificate, of_probes, remarks

_STATUS: Mapping[Status, Tone] = {"partial": "doubt", "failed": "bad", "not run": "faint", "withheld": "bad"}
_BADGE: Mapping[State, Tone] = {
    "withdrawn": "bad",
    "masking": "bad",
    "weak attack": "bad",
    "warned": "doubt",
    "pass": "good",
    "not audited": "faint",
}


@dataclass(frozen=True)
class Line:
    """A row, and the numbers of the notes about it.

    Attributes:
        row: One trained defence.
        table: Which it stands in.
        numbers: Of each note of the table, from 1.
        citations: The papers of the table's defences.
    """

    row: Row
    table: Table
    numbers: Mapping[str, int]
    citations: Citations

    def numbers_of(self, entry: Entry) -> list[int]:
        """Of the notes about an entry."""
        return sorted({self.numbers[note] for note in noted(self.row.label, entry)})


def columns(table: Table) -> list[Column[Line]]:
    """The columns of a table. One more is one entry here, for every format."""
    proven: list[Column[Line]] = [Column("certified", "certified", _certified, recorded=True)]
    far: list[Column[Line]] = [Column("distance", "distance", _distance, drops=2)]
    versus: list[Column[Line]] = [Column("versus", f"vs {table.against}", _versus, recorded=True)]
    return [
        Column("rank", "#", lambda line: Place(line.row.place, exact=line.row.rank), recorded=True),
        Column("defense", "defence", _name, "left", heads=True, recorded=True),
        Column("clean", "clean", lambda line: figure(line.row.clean, line), recorded=True),
        *(proven if any(row.certificate for row in table.rows) else []),
        Column("robust", "robust", _robust, recorded=True),
        *(versus if table.against else []),
        *(far if any(row.distance is not None for row in table.rows) else []),
        Column("lowest", "lowest", lambda line: Text(str(line.row.set_by or "–")), "left", drops=3, recorded=True),
        Column("attacks", "attacks", lambda line: Text(str(line.row.over)), drops=2, recorded=True),
        Column("n", "n", _images, drops=1, recorded=True),
        Column("audit", "audit", _badge, "left", paragraph=26, recorded=True),
        *map(_attack, table.columns),
    ]


def document(tables: Sequence[Table]) -> Document:
    """A section for each table."""
    made = [(table, columns(table), _lines(table)) for table in tables]
    return Document(
        "benchbox report",
        [_section(*parts) for parts in made],
        lambda: {"tables": [record.table(table, own, lines) for table, own, lines in made]},
        record.fields([own for _, own, _ in made]),
        lambda: (line for table, own, lines in made for line in record.lines(table, own, lines)),
        partial(_page, tables),
    )


def _page(tables: Sequence[Table], made: Document, draw: Draw) -> str:
    from benchbox.report.page import render

    return render(made, tables, draw(tables))


def _lines(table: Table) -> list[Line]:
    found = dict.fromkeys(
        note for row in table.rows for entry in row.entries.values() for note in noted(row.label, entry)
    )
    numbers = {note: number for number, note in enumerate(found, start=1)}
    citations = Citations((row.defense.name for row in table.rows), table.papers)
    return [Line(row, table, numbers, citations) for row in table.rows]


def _section(table: Table, own: Sequence[Column[Line]], lines: Sequence[Line]) -> Section:
    shown = grid(
        own,
        lines,
        caption="robust accuracy in percent",
        grouping=("access", "accuracy under {} attacks"),
        across=table.attacks,
        absent=partial(_absent, lines),
    )
    samples = table.samples
    source = (
        f"Images: {samples.split} split, SHA-256 {samples.digest[:16]}. "
        "Rest the pointer on a number for the cells behind it."
    )
    notes = list(lines[0].numbers) if lines else []
    small, printed = list(remarks(table)), list(brief(table))
    keyed = lines[0].citations.sources if lines else []
    return Section(table.title, [shown], notes, remarks=small, brief=printed, keyed=keyed, sources=[source])


def figure(entry: Entry, line: Line) -> Number:
    """The number of an entry, with its interval, its notes and what the paper prints."""
    return _entry(entry, tuple(line.numbers_of(entry)))


def _absent(lines: Sequence[Line], number: int, access: str, attack: str) -> Number:
    """What stands where a table has no such column.

    White-box columns that gray-box ones stand for are left out: for a defence without purifier both are the same.
    """
    line = lines[number]
    entry = line.row.entries.get(AttackColumn(Access.GRAY_BOX, attack), Entry())
    if access != Access.WHITE_BOX or line.row.purifier:
        return _entry(Entry())
    return figure(replace(entry, status="done") if entry.status == "same" else entry, line)


def _entry(entry: Entry, notes: tuple[int, ...] = ()) -> Number:
    printed = entry.paper
    return Number(
        entry.figure,
        provenance(entry),
        _STATUS.get(entry.status, ""),
        exact=entry.score.percent if entry.score else None,
        interval=entry.score.interval if entry.score else "",
        ends=(entry.score.low, entry.score.high) if entry.score else None,
        beside=Text(str(printed), f"Table {printed.table} of the paper") if printed else None,
        notes=notes,
    )


def provenance(entry: Entry) -> str:
    """What a number stands on: a line or two for each cell."""
    lines = []
    for measurement in entry.measurements:
        evidence = measurement.evidence
        through = f"{measurement.stand_in}: " if measurement.stand_in else ""
        number = f"{measurement.score} {measurement.score.interval}" if measurement.score else "no number"
        lines.append(f"{through}{number}, {measurement.status}, n = {len(evidence.outcome)}")
        lines.append(f"cell {evidence.cell.key[:16]}, commit {measurement.commit[:12]}, {evidence.seconds:.1f} s")
        if measurement.passes:
            lines.append("{:.0f} forward, {:.0f} backward passes a sample".format(*measurement.passes))
        if evidence.error:
            lines.append(evidence.error)
    return "\n".join(lines)


def _attack(column: AttackColumn) -> Column[Line]:
    value = partial(_under, column)
    return Column(str(column), column.attack, value, group=str(column.access), recorded=True)


def _under(column: AttackColumn, line: Line) -> Number:
    return figure(line.row.entries.get(column, Entry()), line)


def _name(line: Line) -> Text:
    """With how the defence was made behind it."""
    row = line.row
    settings = json.dumps(dict(row.defense.arguments), ensure_ascii=False)
    made = f"code {row.defense.code}, weights {row.artifact[:16]}, training seed {row.training_seed}"
    key, _ = line.citations.place(row.defense.name)
    return Cited(row.label, f"{settings}\n{made}", key=key)


def _robust(line: Line) -> Number:
    robust = line.row.robust
    if robust is None:
        return Number(line.row.headline, strong=True)
    ends = (robust.low, robust.high)
    said = of_probes(line.row)
    return Number(line.row.headline, said, strong=True, exact=robust.percent, interval=robust.interval, ends=ends)


def _certified(line: Line) -> Number:
    """A lower bound of the robust accuracy beside the upper one."""
    found = line.row.certificate
    if found is None:
        return Number("–", tone="faint")
    if line.row.withheld:
        return Number(WITHHELD, tone="bad")
    if found.refuted:
        return Number(REFUTED, of_certificate(found), "bad", strong=True)
    if (bound := line.row.certified) is None:
        return Number("…", tone="doubt")
    return Number(str(bound), exact=bound.percent, interval=bound.interval, ends=(bound.low, bound.high))


def _distance(line: Line) -> Text:
    """To the nearest error, as a median over the images that are classified correctly."""
    found, threat = line.row.distance, line.table.threat
    if found is None:
        return Text("–")
    return Text(f"> {threat.epsilon:.3g}" if found == float("inf") else f"{found:.3g}", f"median, {threat.norm}")


def _versus(line: Line) -> Number:
    versus: Versus | None = line.row.versus
    if versus is None:
        return Number("–")
    return Number(
        str(versus),
        f"{versus.test}, p = {versus.p:.2g} after Holm",
        strong=versus.significant,
        exact=versus.difference,
        interval=versus.interval,
    )


def _images(line: Line) -> Text:
    return Text(str(line.row.robust.n if line.row.robust else len(line.table.samples)))


def _badge(line: Line) -> Badge:
    badge = line.row.badge
    return Badge(str(badge), badge.detail, _BADGE.get(badge.state, ""), strong=badge.invalid)
