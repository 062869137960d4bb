"""What a table in the shape of the PSSR paper's shows: rows, columns, data sets and accesses, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchbox.analysis import labels, paper
from benchbox.analysis.selection import PREFIX
from benchbox.analysis.table import Row, Table
from benchbox.domain import Access
from benchbox.errors import RequestError, unknown

BENIGN, WORST = "benign", "worst"
#: What each table is about: its accesses. Tables 1 and 4 say white-box, and a purifier's can only be gray-box.
ACCESSES: Mapping[int, tuple[Access, ...]] = {
    1: (Access.GRAY_BOX, Access.WHITE_BOX),
    2: (Access.TRANSFER,),
    3: (Access.BPDA,),
    4: (Access.GRAY_BOX, Access.WHITE_BOX),
}


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


def rows(table: Table | None, name: str, layout: Layout) -> Sequence[Row]:
    """Those a name means: every row of the defence, of the usual recipe alone in a table of the paper."""
    rows = table.rows if table else ()
    own = [row for row in rows if row.defense.name == name]
    usual = [row for row in own if row.usual] if layout.number is not None else []
    return usual or own or [row for row in rows if _is_called(row, name)]


def _is_called(row: Row, name: str) -> bool:
    return row.label == name or (len(name) >= PREFIX and row.artifact.startswith(name))


def names(dataset: str, table: Table | None, layout: Layout) -> Iterable[str]:
    """The rows of the paper's table; all that were measured, for a data set that it lacks."""
    own = tuple(dict.fromkeys(row.defense.name for row in table.rows)) if table else ()
    if layout.number is None:
        return own
    printed = paper.lines_of(layout.number, dataset)
    return printed or [name for name in _every_name(layout.number) if name in own]


def _every_name(number: int) -> Iterable[str]:
    return dict.fromkeys(name for dataset in paper.EPSILON for name in paper.lines_of(number, dataset))


def printed(layout: Layout) -> Sequence[str]:
    """The data sets of the paper's table."""
    return () if layout.number is None else [n for n in paper.EPSILON if paper.lines_of(layout.number, n)]


def datasets(tables: Sequence[Table], layout: Layout) -> tuple[str, ...]:
    """The paper's, if any was measured, else all."""
    measured = dict.fromkeys(table.samples.dataset for table in tables)
    return tuple(name for name in printed(layout) if name in measured) or tuple(measured)


def is_of(table: Table, dataset: str, layout: Layout) -> bool:
    """Whether it belongs into the data set's place: in a table of the paper, inside its ball."""
    if table.samples.dataset != dataset:
        return False
    return layout.number is None or dataset not in paper.EPSILON or paper.is_its_ball(dataset, table.threat)


def longest(grounds: Sequence[Table]) -> list[Table]:
    """For each data set the one of most images: across there is room for one."""
    found: dict[str, Table] = {}
    for table in grounds:
        known = found.get(table.samples.dataset)
        if known is None or len(table.samples) > len(known.samples):
            found[table.samples.dataset] = table
    return list(found.values())


def accesses(grounds: Sequence[Table], layout: Layout) -> tuple[Access, ...]:
    """The paper's, or all that were measured."""
    if layout.number is not None:
        return ACCESSES[layout.number]
    return tuple(access for access in Access if any(access in table.accesses for table in grounds))


def columns(grounds: Sequence[Table], layout: Layout, accesses: Sequence[Access]) -> tuple[str, ...]:
    """The paper's attacks, or all that were measured, between the clean images and the worst case."""
    if layout.number is not None:
        return BENIGN, *(name for name, place in paper.attacks().items() if place.column), WORST
    found = {c.attack for table in grounds for c in table.columns if c.access in accesses}
    return BENIGN, *sorted(found, key=labels.attack_place), WORST


def check(tables: Sequence[Table], layout: Layout) -> None:
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
