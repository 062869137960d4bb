"""The table of each tab: the columns of the document, those of each access, and what the paper claims."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchbox.analysis.by_access import UnderAccess, by_access
from benchbox.analysis.survival import ORDER, Claim, claim
from benchbox.domain import format_epsilon
from benchbox.report import latex
from benchbox.report.document import Number, Place, Text, Value
from benchbox.report.page.drill import Drill, drill

if TYPE_CHECKING:
    from benchbox.analysis.badge import Badge
    from benchbox.analysis.table import Row, Table
    from benchbox.domain import Access
    from benchbox.report.document import Column, Document, Grid, Section

#: The document's columns that a reader wants first; the others follow in their own order.
FIRST = ("rank", "defense", "certified", "robust", "audit", "clean")
#: Those that the width of a telephone has room for.
NARROW = ("rank", "defense", "robust", "audit")
#: What is read only when something is looked up.
LAST = ("lowest", "attacks", "n")


@dataclass(frozen=True)
class Head:
    """The heading of a column.

    Attributes:
        key: For machines, unique in its table.
        title: For readers.
        access: What its attackers know; empty for what is no accuracy under attack.
        attack: Whether it shows one attack: then it is seen when its access is chosen.
        words: Whether it holds words, not numbers.
    """

    key: str
    title: str
    access: str = ""
    attack: bool = False
    words: bool = False

    @property
    def narrow(self) -> bool:
        """Whether it stays on a telephone."""
        return self.key in NARROW

    @property
    def searched(self) -> bool:
        """Whether the search reads it: what it finds is seen without scrolling."""
        return self.words and self.key not in LAST

    @property
    def classes(self) -> str:
        """What the style sheet knows the column by."""
        named = slug(self.access or self.key)
        kind = " attack" if self.attack else " under" if self.access else ""
        return f"{named}{kind}{'' if self.narrow else ' wide'}{'' if self.words else ' figure'}"

    @property
    def tex(self) -> str:
        """The heading in LaTeX."""
        return latex.escape(self.title)


@dataclass(frozen=True)
class Cell:
    """What stands where a row meets a column.

    Attributes:
        value: As every format prints it.
        order: What it is sorted by; empty where there is nothing.
        claimed: The paper's claim, drawn into the bar of a number.
        small: A few words below it.
    """

    value: Value
    order: float | int | str
    claimed: float | None = None
    small: str = ""

    @property
    def tex(self) -> str:
        """The text in LaTeX, where that is another one."""
        escaped = latex.escape(self.value.text)
        return "" if escaped == self.value.text else escaped


@dataclass(frozen=True)
class Line:
    """A row of the page.

    Attributes:
        id: For addresses; the same as long as recipe, seed and weights are.
        label: Its name.
        ranked: Whether it has a place.
        kinds: What sort of defence it is, for the filter.
        accesses: Those under which something was measured, likewise.
        cells: One for each heading.
        audit: What was found of it.
        drill: What a click opens.
    """

    id: str
    label: str
    ranked: bool
    kinds: tuple[str, ...]
    accesses: tuple[str, ...]
    cells: Sequence[Cell]
    audit: Badge
    drill: Drill


@dataclass(frozen=True)
class Tab:
    """A data set and a ball.

    Attributes:
        id: For addresses.
        title: Of the tab.
        section: Of the document: its notes and small print.
        heads: The columns.
        lines: The rows, best first.
        accesses: Those of its attacks, from what knows most.
    """

    id: str
    title: str
    section: Section
    heads: Sequence[Head]
    lines: Sequence[Line]
    accesses: Sequence[Access]

    @property
    def said(self) -> list[str]:
        """What stands under the table."""
        return [*self.section.sentences, *self.section.remarks, *self.section.sources]

    @property
    def kinds(self) -> list[str]:
        """Everything the filter can ask for."""
        return sorted({kind for line in self.lines for kind in line.kinds})


def board(document: Document, tables: Sequence[Table], pictures: Sequence[Mapping[str, str]]) -> list[Tab]:
    """A tab for each section of the document."""
    plain = [slug(f"{t.samples.dataset}-{t.threat.norm}-{format_epsilon(t.threat.epsilon)}") for t in tables]
    ids = [
        name if plain.count(name) == 1 else f"{name}-{slug(table.samples.digest[:8])}-{place}"
        for place, (name, table) in enumerate(zip(plain, tables, strict=True), start=1)
    ]
    made = zip(ids, document.sections, tables, pictures, strict=True)
    return [_tab(id, section, table, drawn) for id, section, table, drawn in made]


def slug(text: str) -> str:
    """Words for an address."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "x"


def _tab(id: str, section: Section, table: Table, pictures: Mapping[str, str]) -> Tab:
    (grid,) = section.grids
    places = _order(grid)
    own = [(i, _head(grid.columns[i])) for i in places]
    after = next(k for k, (_, head) in enumerate(own) if head.key == "robust") + 1
    accesses = [access for access in ORDER if table.under(access)]
    added = [Head(f"under {access}", "worst case", str(access)) for access in accesses]
    firsts = [k for k, (_, head) in enumerate(own) if head.key in FIRST]
    split = max(firsts) + 1
    heads = [head for _, head in own]
    heads = [*heads[:after], Head("claim", "the paper's claim"), *heads[after:split], *added, *heads[split:]]
    lines = []
    for place, (row, values) in enumerate(zip(table.rows, grid.rows, strict=True), start=1):
        recipe = row.defense.identity
        claimed = claim(table.samples.dataset, row.defense.name, table.threat) if row.usual else None
        under = by_access(table, row)
        cells = [_cell(values[i], place, claimed, head) for i, head in own]
        cells = [
            *cells[:after],
            _claim(claimed),
            *cells[after:split],
            *(_under(one, claimed) for one in under),
            *cells[split:],
        ]
        measured = tuple(str(one.access) for one in under if one.entry.score is not None)
        opened = drill(table, row, claimed, pictures.get(recipe, ""))
        audit = row.badge
        lines.append(Line(_id(row), row.label, row.rank is not None, _kinds(row), measured, cells, audit, opened))
    return Tab(id, table.title, section, heads, lines, accesses)


def _order(grid: Grid) -> list[int]:
    """Numbers of the document's columns as they stand on the page; attacks by access, from what knows most."""
    keys = [column.key for column in grid.columns]
    groups = [str(access) for access in ORDER]

    def place(i: int) -> tuple[int, int, int]:
        column = grid.columns[i]
        if column.group:
            return 2, groups.index(column.group), i
        if column.key in FIRST:
            return 0, FIRST.index(column.key), i
        return (3 if column.key in LAST else 1), 0, i

    return sorted(range(len(keys)), key=place)


def _head(column: Column[Any]) -> Head:
    words = column.align == "left" and not column.group
    return Head(column.key, column.title, column.group, bool(column.group), words)


def _cell(value: Value, place: int, claimed: Claim | None, head: Head) -> Cell:
    if isinstance(value, Place):
        return Cell(value, place)
    if isinstance(value, Number):
        number = "" if value.exact is None else value.exact
        against = claimed.percent if claimed is not None and (head.access or head.key == "robust") else None
        return Cell(value, number, against)
    return Cell(value, value.plain)


def _claim(claimed: Claim | None) -> Cell:
    if claimed is None:
        return Cell(Text("–", tone="faint"), "")
    number = Number(f"{claimed.percent:.2f}", exact=claimed.percent)
    return Cell(number, claimed.percent, small=f"{claimed.table}, {claimed.column}")


def _under(one: UnderAccess, claimed: Claim | None) -> Cell:
    score = one.entry.score
    ends = (score.low, score.high) if score else None
    number = Number(
        one.entry.figure,
        tone="" if score else "faint",
        exact=score.percent if score else None,
        interval=score.interval if score else "",
        ends=ends,
    )
    said = "" if one.finished == one.attacks else f"{one.finished} of {one.attacks} attacks"
    return Cell(number, score.percent if score else "", claimed.percent if claimed else None, said)


def _id(row: Row) -> str:
    whole = f"{row.defense.identity} {row.training_seed} {row.artifact}"
    return f"{slug(row.defense.name)}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _kinds(row: Row) -> tuple[str, ...]:
    randomised = row.control is not None or any(
        entry.score is not None and entry.score.draws > 1 for entry in row.entries.values()
    )
    found = {
        "purifies the image": row.purifier,
        "classifier alone": not row.purifier,
        "randomised": randomised,
        "oracle": row.oracle,
    }
    return tuple(kind for kind, holds in found.items() if holds)
