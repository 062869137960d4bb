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

from benchbox.analysis import labels, pairs, paper, ranking
from benchbox.analysis.score import BOOTSTRAP_SEED, Entry, Score, Status, combine, united
from benchbox.analysis.selection import PREFIX
from benchbox.analysis.table import Column, Row, Table
from benchbox.analysis.worst_case import by_draws
from benchbox.domain import Access, ThreatModel
from benchbox.errors import RequestError, unknown

BENIGN, WORST = "benign", "worst"
#: What each table is about: its accesses. Tables 1 and 4 say white-box, and a purifier's can only be gray-box.
ACCESSES: Mapping[int, tuple[Access, ...]] = {
    1: (Access.GRAY_BOX, Access.WHITE_BOX),
    2: (Access.TRANSFER,),
    3: (Access.BPDA,),
    4: (Access.GRAY_BOX, Access.WHITE_BOX),
}
#: Of Table 3, which names no attack behind BPDA; as docs/grids/table3.toml.
BEHIND_BPDA = ("pgd",)


@dataclass(frozen=True)
class Layout:
    """What a table shows.

    Attributes:
        number: Which of the paper's, 1 to 4; None for one of the reader's own.
        rows: Names of defences, labels or digests of weights; all, or the paper's, if empty.
        columns: Names of attacks, `benign` and `worst`; the paper's, or all, if empty.
        datasets: Names; the paper's, as far as anything is known of them, or all, if empty.
        accesses: What attackers know; the paper's, or all that were measured, if empty.
    """

    number: int | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    accesses: tuple[Access, ...] = ()

    def __post_init__(self) -> None:
        if self.number is not None and self.number not in ACCESSES:
            raise RequestError(f"the paper has no Table {self.number} of results; choose 1, 2, 3 or 4")

    @property
    def across(self) -> bool:
        """Whether data sets stand across and stand-ins down."""
        return self.number == 3


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
    """

    status: Status = "not run"
    score: Score | None = None
    best: bool = False
    whole: bool = True
    printed: paper.Printed | None = None
    doubt: str = ""

    @property
    def competes(self) -> bool:
        """Whether it can be the best."""
        return self.score is not None and self.status in ("done", "same") and self.whole


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        name: Of the defence.
        remark: How its recipe departs from the usual one, and such.
        stand_in: The stand-in of BPDA; "" for the worst over all of them, and outside Table 3.
        figures: By column.
        ranks: Whether its figures may be the best: not an oracle's or one whose audit withdrew it.
        withdrawn: Whether the audit found that its numbers are not what they say.
    """

    name: str
    remark: str = ""
    stand_in: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    ranks: bool = True
    withdrawn: bool = False

    def at(self, column: str) -> Figure:
        """What stands there; "not run" where nothing does."""
        return self.figures.get(column, Figure())


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
        grounds: The tables it is made of, by data set and images.
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
    _check(tables, layout)
    datasets = layout.datasets or _datasets(tables, layout)
    grounds = [table for name in datasets for table in tables if _is_of(table, name, layout)]
    unmeasured = [name for name in _printed(layout) if not any(t.samples.dataset == name for t in grounds)]
    accesses = layout.accesses or _accesses(grounds, layout)
    if layout.across:
        columns = tuple(name for name in datasets if name not in unmeasured or name in layout.datasets)
        groups = [_across(access, _longest(grounds), layout) for access in accesses]
    else:
        columns = layout.columns or _columns(grounds, layout, accesses)
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
        found = [i for i, line in enumerate(lines) if line.ranks and line.at(column).competes]
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
    for name in layout.rows or _names(dataset, table, layout):
        rows = _rows(table, name, layout)
        lines += [_line(row, table, access, columns, layout) for row in rows if table is not None]
        lines += [] if rows else [_empty(name, dataset, table, columns, layout)]
    return Group(access, dataset, table, tuple(lines))


def _line(row: Row, table: Table, access: Access, columns: Sequence[str], layout: Layout) -> Line:
    attacks = [column for column in columns if column not in (BENIGN, WORST)]
    entries = {attack: _entry(row, Column(access, attack)) for attack in attacks}
    figures = {attack: Figure(entry.status, entry.score) for attack, entry in entries.items()}
    figures[BENIGN] = Figure(row.clean.status, row.clean.score)
    figures[WORST] = _worst(row, entries)
    shown = {
        column: replace(figures[column], printed=_printed_for(row, table, access, column, layout))
        for column in columns
    }
    return _of_row(row, figures=shown)


def _of_row(row: Row, *, figures: Mapping[str, Figure], stand_in: str = "") -> Line:
    remark = row.label.removeprefix(row.defense.name).strip()
    ranks = not (row.oracle or row.invalid or row.withheld or row.uncontrolled)
    return Line(row.defense.name, remark, stand_in, figures, ranks, withdrawn=row.invalid)


def _entry(row: Row, column: Column) -> Entry:
    """A number of the row; that of the other access where both are one model."""
    entry = row.entries.get(column, Entry())
    if entry.status == "not run" and not row.purifier and column.access in (Access.WHITE_BOX, Access.GRAY_BOX):
        other = Access.GRAY_BOX if column.access is Access.WHITE_BOX else Access.WHITE_BOX
        return row.entries.get(Column(other, column.attack), entry)
    return entry


def _worst(row: Row, entries: Mapping[str, Entry]) -> Figure:
    """Image by image over the clean image and the finished attacks of the line."""
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
        name for table in grounds for name in _names(table.samples.dataset, table, layout)
    )
    for name in names:
        for table in grounds:
            for row in _rows(table, name, layout):
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
    attacks = [name for name in layout.columns or BEHIND_BPDA if name not in (BENIGN, WORST)]
    entries = {attack: _entry(row, Column(access, attack)) for attack in attacks}
    measured = [(a, m) for a, entry in entries.items() for m in entry.measurements]
    dataset = table.samples.dataset
    for attack, stand_in in dict.fromkeys((a, m.stand_in) for a, m in measured if m.stand_in):
        own = combine([m for a, m in measured if (a, m.stand_in) == (attack, stand_in)])
        said = stand_in if len(attacks) == 1 else f"{attack} through {stand_in}"
        line = _of_row(row, figures={dataset: Figure(own.status, own.score)}, stand_in=said)
        yield replace(line, ranks=False)
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


def _rows(table: Table | None, name: str, layout: Layout) -> Sequence[Row]:
    """Those a name means: every row of the defence, of the usual recipe alone in a table of the paper."""
    rows = table.rows if table else ()
    own = [row for row in rows if row.defense.name == name]
    usual = [row for row in own if row.usual] if layout.number is not None else []
    return usual or own or [row for row in rows if _is_called(row, name)]


def _is_called(row: Row, name: str) -> bool:
    return row.label == name or (len(name) >= PREFIX and row.artifact.startswith(name))


def _names(dataset: str, table: Table | None, layout: Layout) -> Iterable[str]:
    """The rows of the paper's table; all that were measured, for a data set that it lacks."""
    own = tuple(dict.fromkeys(row.defense.name for row in table.rows)) if table else ()
    if layout.number is None:
        return own
    printed = paper.lines_of(layout.number, dataset)
    return printed or [name for name in _every_name(layout.number) if name in own]


def _every_name(number: int) -> Iterable[str]:
    return dict.fromkeys(name for dataset in paper.EPSILON for name in paper.lines_of(number, dataset))


def _printed(layout: Layout) -> Sequence[str]:
    """The data sets of the paper's table."""
    return () if layout.number is None else [n for n in paper.EPSILON if paper.lines_of(layout.number, n)]


def _datasets(tables: Sequence[Table], layout: Layout) -> tuple[str, ...]:
    """The paper's, if any was measured, else all."""
    measured = dict.fromkeys(table.samples.dataset for table in tables)
    return tuple(name for name in _printed(layout) if name in measured) or tuple(measured)


def _is_of(table: Table, dataset: str, layout: Layout) -> bool:
    """Whether it belongs into the data set's place: in a table of the paper, inside its ball."""
    if table.samples.dataset != dataset:
        return False
    return layout.number is None or dataset not in paper.EPSILON or paper.is_its_ball(dataset, table.threat)


def _longest(grounds: Sequence[Table]) -> list[Table]:
    """For each data set the one of most images: across there is room for one."""
    found: dict[str, Table] = {}
    for table in grounds:
        known = found.get(table.samples.dataset)
        if known is None or len(table.samples) > len(known.samples):
            found[table.samples.dataset] = table
    return list(found.values())


def _accesses(grounds: Sequence[Table], layout: Layout) -> tuple[Access, ...]:
    if layout.number is not None:
        return ACCESSES[layout.number]
    return tuple(access for access in Access if any(access in table.accesses for table in grounds))


def _columns(grounds: Sequence[Table], layout: Layout, accesses: Sequence[Access]) -> tuple[str, ...]:
    if layout.number is not None:
        return BENIGN, *(name for name, place in paper.attacks().items() if place.column), WORST
    found = {c.attack for table in grounds for c in table.columns if c.access in accesses}
    return BENIGN, *sorted(found, key=labels.attack_place), WORST


def _check(tables: Sequence[Table], layout: Layout) -> None:
    """Refuse a name that nobody knows, measured or printed."""
    rows = {row.defense.name for table in tables for row in table.rows}
    known = {*rows, *(name for number in ACCESSES for name in _every_name(number))}
    for name in layout.rows:
        if name not in known and not any(_is_called(row, name) for table in tables for row in table.rows):
            raise unknown("defence", name, known)
    attacks = {BENIGN, WORST, *paper.attacks(), *(a for table in tables for a in table.attacks)}
    for name in layout.columns:
        if name not in attacks:
            raise unknown("column", name, attacks)
    datasets = {*paper.EPSILON, *(table.samples.dataset for table in tables)}
    for name in layout.datasets:
        if name not in datasets:
            raise unknown("data set", name, datasets)
