"""The tables of the PSSR paper with numbers of ours: whose, where, and which are best.

A table is groups of rows: a data set under an access. Tables 1, 2 and 4 have attacks across; Table 3 has data sets
across and one line for each stand-in of BPDA.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchbox.analysis import pairs, paper, paper_layout, ranking
from benchbox.analysis.paper_layout import BENIGN, WORST, Layout
from benchbox.analysis.score import BOOTSTRAP_SEED, Entry, Score, Status, combine, united
from benchbox.analysis.table import Column, Row, Table
from benchbox.analysis.worst_case import by_draws
from benchbox.domain import Access, ThreatModel

#: Of Table 3, which names no attack behind BPDA; as docs/grids/table3.toml.
BEHIND_BPDA = ("pgd",)


@dataclass(frozen=True)
class Figure:
    """What stands where a line meets a column.

    Attributes:
        status: As of an entry.
        score: None where there is none.
        best: Whether it is the best of its column and group, or not significantly worse.
        whole: Of a worst case: whether every attack of the line is finished.
        printed: What the paper prints there.
        doubt: Marks of what is doubtful about a worst case.
        ranks: Whether it may be the best: not an oracle's, one whose audit withdrew it, or that of one stand-in.
        withdrawn: Whether the audit of the weights behind it found that it is not what it says.
    """

    status: Status = "not run"
    score: Score | None = None
    best: bool = False
    whole: bool = True
    printed: paper.Printed | None = None
    doubt: str = ""
    ranks: bool = True
    withdrawn: bool = False

    @property
    def competes(self) -> bool:
        """Whether it can be the best."""
        return self.ranks and self.score is not None and self.status in ("done", "same") and self.whole


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        name: Of the defence.
        remark: How its recipe departs from the usual one, and such.
        stand_in: The stand-in of BPDA; "" for the worst over all of them, and outside Table 3.
        figures: By column; where data sets stand across, each is of weights of its own.
    """

    name: str
    remark: str = ""
    stand_in: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def at(self, column: str) -> Figure:
        """What stands there; "not run" where nothing does."""
        return self.figures.get(column, Figure())

    @property
    def withdrawn(self) -> bool:
        """Whether a number of it is withdrawn; all are, where all are of the same weights."""
        return any(figure.withdrawn for figure in self.figures.values())


@dataclass(frozen=True)
class Group:
    """Rows that are compared with one another: a data set, or all of them across, under one access.

    Attributes:
        access: What the attackers know.
        dataset: "" where data sets stand across.
        ground: The table that the rows are of; None where nothing was measured, and across.
        lines: The rows.
    """

    access: Access
    dataset: str
    ground: Table | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table in the paper's shape.

    Attributes:
        layout: What was asked for.
        columns: Attacks, `benign` and `worst`; across, data sets.
        groups: Of rows.
        grounds: The tables it is made of, by data set and images; across, one for each data set.
        unmeasured: Data sets of the paper's table of which nothing is known.
    """

    layout: Layout
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    grounds: tuple[Table, ...]
    unmeasured: tuple[str, ...] = ()

    @property
    def accesses(self) -> tuple[Access, ...]:
        """Of its groups, each once."""
        return tuple(dict.fromkeys(group.access for group in self.groups))

    @property
    def figures(self) -> Iterator[Figure]:
        """All of them."""
        return (figure for group in self.groups for line in group.lines for figure in line.figures.values())

    @cached_property
    def widest(self) -> float | None:
        """Half the width of its widest interval, in points; None without a number."""
        scores = [figure.score for figure in self.figures if figure.score is not None]
        return max(((score.high - score.low) / 2 for score in scores), default=None)


def arrange(tables: Sequence[Table], layout: Layout) -> PaperTable:
    """Put what was measured into the paper's shape.

    Args:
        tables: One for each data set, ball and list of images.
        layout: What to show.

    Raises:
        RequestError: Nobody knows a row, a column or a data set of it.
    """
    paper_layout.check(tables, layout)
    datasets = layout.datasets or paper_layout.datasets(tables, layout)
    grounds = [table for name in datasets for table in tables if paper_layout.is_of(table, name, layout)]
    if layout.across:
        grounds = paper_layout.longest(grounds)
    unmeasured = [
        name for name in paper_layout.printed(layout) if not any(t.samples.dataset == name for t in grounds)
    ]
    accesses = layout.accesses or paper_layout.accesses(grounds, layout)
    if layout.across:
        columns = tuple(name for name in datasets if name not in unmeasured or name in layout.datasets)
        groups = [_across(access, grounds, layout) for access in accesses]
    else:
        columns = layout.columns or paper_layout.columns(grounds, layout, accesses)
        empty = [name for name in layout.datasets if not any(t.samples.dataset == name for t in grounds)]
        places: list[tuple[str, Table | None]] = [(table.samples.dataset, table) for table in grounds]
        places += [(name, None) for name in empty]
        groups = [_group(a, name, ground, columns, layout) for name, ground in places for a in accesses]
    kept = tuple(with_best(group, columns) for group in groups if group.lines)
    return PaperTable(layout, columns, kept, tuple(grounds), tuple(n for n in unmeasured if n not in columns))


def with_best(group: Group, columns: Iterable[str]) -> Group:
    """The group with the best of each column marked, where several compete.

    Nobody is best where a defence that loses every image would not be significantly worse.
    """
    lines = list(group.lines)
    for column in columns:
        found = [i for i, line in enumerate(lines) if line.at(column).competes]
        scores = [score for i in found if (score := lines[i].at(column).score) is not None]
        shares = [score.shares for score in scores]
        if len(shares) < 2 or not _anything_left(max(shares, key=lambda one: float(one.mean()))):
            continue
        for i in (found[place] for place in ranking.best(shares)):
            lines[i] = replace(
                lines[i], figures={**lines[i].figures, column: replace(lines[i].at(column), best=True)}
            )
    return replace(group, lines=tuple(lines))


def _anything_left(shares: NDArray[np.float64]) -> bool:
    return pairs.significance(shares, np.zeros_like(shares), BOOTSTRAP_SEED).p < pairs.ALPHA


def _group(access: Access, dataset: str, table: Table | None, columns: Sequence[str], layout: Layout) -> Group:
    lines = []
    for name in layout.rows or paper_layout.names(dataset, table, layout):
        rows = paper_layout.rows(table, name, layout)
        lines += [_line(row, table, access, columns, layout) for row in rows if table is not None]
        lines += [] if rows else [_empty(name, dataset, table, columns, layout)]
    return Group(access, dataset, table, tuple(lines))


def _line(row: Row, table: Table, access: Access, columns: Sequence[str], layout: Layout) -> Line:
    attacks = [column for column in columns if column not in (BENIGN, WORST)]
    entries = {attack: _entry(row, Column(access, attack)) for attack in attacks}
    figures = {attack: Figure(entry.status, entry.score) for attack, entry in entries.items()}
    figures[BENIGN] = Figure(row.clean.status, row.clean.score)
    figures[WORST] = _worst(row, entries or _every(row, table, access))
    shown = {
        column: replace(figures[column], printed=_printed_for(row, table, access, column, layout))
        for column in columns
    }
    return _of_row(row, figures=shown)


def _of_row(row: Row, *, figures: Mapping[str, Figure], stand_in: str = "") -> Line:
    remark = row.label.removeprefix(row.defense.name).strip()
    ranks = not (stand_in or row.oracle or row.invalid or row.withheld or row.uncontrolled)
    own = {column: replace(figure, ranks=ranks, withdrawn=row.invalid) for column, figure in figures.items()}
    return Line(row.defense.name, remark, stand_in, own)


def _every(row: Row, table: Table, access: Access) -> Mapping[str, Entry]:
    """The row's entries for all attacks that anybody in the table was measured under: no column names one."""
    measured = {
        attack
        for attack in table.attacks
        if any(_entry(other, Column(access, attack)).status != "not run" for other in table.rows)
    }
    return {attack: _entry(row, Column(access, attack)) for attack in sorted(measured)}


def _entry(row: Row, column: Column) -> Entry:
    """A number of the row; that of the other access where both are one model."""
    entry = row.entries.get(column, Entry())
    if entry.status == "not run" and not row.purifier and column.access in (Access.WHITE_BOX, Access.GRAY_BOX):
        other = Access.GRAY_BOX if column.access is Access.WHITE_BOX else Access.WHITE_BOX
        return row.entries.get(Column(other, column.attack), entry)
    return entry


def _worst(row: Row, entries: Mapping[str, Entry]) -> Figure:
    """Image by image over the clean image and the finished ones of these attacks."""
    done = [entry for entry in entries.values() if entry.status in ("done", "same")]
    cells = sorted((m.evidence for entry in done for m in entry.measurements), key=by_draws)
    if row.withheld:
        return Figure("withheld")
    if not cells:
        return Figure()
    marks = {"§": row.uncontrolled, "‡": row.badge.masked}
    doubt = "".join(mark for mark, holds in marks.items() if holds)
    return Figure("done", united(cells, with_clean=True), whole=len(done) == len(entries), doubt=doubt)


def _across(access: Access, grounds: Sequence[Table], layout: Layout) -> Group:
    """A line for each defence and stand-in, and one for the worst of them; data sets are the columns."""
    found: dict[tuple[str, str, str], Line] = {}
    names = layout.rows or dict.fromkeys(
        name for table in grounds for name in paper_layout.names(table.samples.dataset, table, layout)
    )
    for name in names:
        for table in grounds:
            for row in paper_layout.rows(table, name, layout):
                for line in _through(row, table, access, layout):
                    known = found.setdefault((line.name, line.remark, line.stand_in), line)
                    found[line.name, line.remark, line.stand_in] = replace(
                        known, figures={**known.figures, **line.figures}
                    )
    # The worst of a defence stands below its stand-ins.
    order = list(dict.fromkeys(key[:2] for key in found))
    lines = sorted(
        found.values(),
        key=lambda line: (order.index((line.name, line.remark)), not line.stand_in, line.stand_in != "exact"),
    )
    return Group(access, "", None, tuple(lines))


def _through(row: Row, table: Table, access: Access, layout: Layout) -> Iterator[Line]:
    attacks = [name for name in layout.columns if name not in (BENIGN, WORST)] or BEHIND_BPDA
    entries = {attack: _entry(row, Column(access, attack)) for attack in attacks}
    measured = [(a, m) for a, entry in entries.items() for m in entry.measurements]
    dataset = table.samples.dataset
    for attack, stand_in in dict.fromkeys((a, m.stand_in) for a, m in measured if m.stand_in):
        own = combine([m for a, m in measured if (a, m.stand_in) == (attack, stand_in)])
        said = stand_in if len(attacks) == 1 else f"{attack} through {stand_in}"
        yield _of_row(row, figures={dataset: Figure(own.status, own.score)}, stand_in=said)
    both = combine([m for _, m in measured])
    whole = all(entry.status in ("done", "same") for entry in entries.values())
    number = paper.in_table(3, dataset, row.defense.name, table.threat, "bpda") if row.usual else None
    doubt = "‡" if row.badge.masked else ""
    yield _of_row(row, figures={dataset: Figure(both.status, both.score, False, whole, number, doubt)})


def _empty(name: str, dataset: str, table: Table | None, columns: Sequence[str], layout: Layout) -> Line:
    """A defence that nobody has run, with what the paper prints of it."""
    if layout.number is None or dataset not in paper.EPSILON:
        return Line(name)
    threat = table.threat if table else ThreatModel("linf", paper.EPSILON[dataset])
    numbers = {c: paper.in_table(layout.number, dataset, name, threat, c) for c in columns}
    return Line(name, figures={column: Figure(printed=number) for column, number in numbers.items()})


def _printed_for(row: Row, table: Table, access: Access, column: str, layout: Layout) -> paper.Printed | None:
    if not row.usual or column == WORST:
        return None
    dataset, name = table.samples.dataset, row.defense.name
    if layout.number is not None:
        return paper.in_table(layout.number, dataset, name, table.threat, column)
    where = None if column == BENIGN else access
    return paper.beside(dataset, name, table.threat, where, column)
