"""Documents for a terminal, whole at any width.

Where a table is too wide, in this order: intervals go under their numbers, words fold at blanks and hyphens,
columns are left out in the order they state, words fold as far as they can; and what is still too wide is
continued below. Numbers are never cut.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchbox.report.document import Cited, Number
from benchbox.text import harmless

if TYPE_CHECKING:
    from benchbox.report.document import Align, Document, Grid, Section, Tone, Value

#: A file has no edge to wrap a table at.
FILE_WIDTH = 200
_STYLE: dict[Tone, str] = {"": "", "good": "green", "doubt": "yellow", "bad": "red", "faint": "dim"}
#: Between two columns, and what a table takes beside them.
_BETWEEN, _EDGES = 3, 2
#: Words break behind these, numbers nowhere.
_BREAK = re.compile(r"(?:\s|[-:/_,](?!\d))+")
#: A piece without blank or hyphen is broken where a column would be wider than this because of it.
_NARROW = 16
#: Columns go rather than that words are folded to less than this.
_LEGIBLE = 12


@dataclass(frozen=True)
class Pages:
    """A document that `rich` can print, laid out for the window it is printed in."""

    document: Document

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.document.sections:
            yield Text("No results yet.")
        for section in self.document.sections:
            yield from _section(section, options.max_width)


def render(document: Document, *, width: int = FILE_WIDTH) -> str:
    """The document as it stands in a terminal of so many columns, without colours."""
    # In a notebook rich would show it there, and the text would be empty.
    console = Console(width=width, file=io.StringIO(), highlight=False, color_system=None, force_jupyter=False)
    console.print(Pages(document))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


class _Column:
    """A column on its way to a width."""

    def __init__(
        self,
        title: str,
        parts: Sequence[Sequence[Text]],
        align: Align = "left",
        *,
        drops: int = 0,
        repeated: bool = False,
        folds: bool = False,
    ) -> None:
        """Begin as wide as it likes to be.

        Args:
            title: Its heading.
            parts: Of each value: the number, its interval and so on; on one line if there is room.
            align: To which side.
            drops: Its turn to be left out, from 1; 0: it stays.
            repeated: Whether it stands again where the table is continued.
            folds: Whether its values are words.
        """
        self.title, self.align, self.drops = harmless(title), align, drops
        self.repeated, self.folds, self._parts = repeated, folds, parts
        self.spread()

    def spread(self) -> None:
        """Every value on one line."""
        self._lay([Text(self.title)], [[Text(" ").join(parts)] for parts in self._parts])

    def stack(self) -> None:
        """Intervals under their numbers, and the heading no wider than it has to be."""
        values = [list(parts) for parts in self._parts]
        body = max((line.cell_len for lines in values for line in lines), default=0)
        self._lay(_folded(Text(self.title), max([body, *map(cell_len, self.title.split())])), values)

    def fold(self, room: int) -> bool:
        """Fold its words to so many columns, or to as few as they need; False if they did not become narrower."""
        before = self.width
        least = max((_least(text.plain) for parts in self._parts for text in parts), default=0)
        room = max(room, min(least, _NARROW), _least(self.title))
        values = [[line for text in parts for line in _folded(text, room)] for parts in self._parts]
        self._lay(_folded(Text(self.title), room), values)
        return self.width < before

    def _lay(self, heading: list[Text], values: list[list[Text]]) -> None:
        self.heading, self.values = heading, values
        self.width = max(line.cell_len for lines in (heading, *values) for line in lines)


def _section(section: Section, width: int) -> Iterator[RenderableType]:
    yield Text(harmless(section.title), style="bold")
    yield from [Padding(Text(harmless(section.caption)), (0, 1))] if section.caption else []
    left_out: list[str] = []
    for grid in section.grids:
        # The last rows of all groups but the last, counted with the headings above them.
        ends = [row - 1 + sum(bool(grid.blocks[r]) for r in grid.blocks if r < row) for row in grid.blocks if row]
        yield from _tables(_plain(grid), ends, width, left_out)
        if grid.groups:
            columns, ends = _stacked(grid)
            yield from _tables(columns, ends, width, left_out)
    for number, note in enumerate(section.notes, start=1):
        yield Padding(Text(harmless(f"[{number}] {note}"), style="yellow"), (0, 1))
    for number, source in enumerate(section.cited, start=1):
        yield Padding(Text(harmless(f"[{number}] {source.text}"), style="dim"), (0, 1))
    yield from (Padding(Text(harmless(sentence)), (0, 1)) for sentence in section.sentences)
    yield from (Padding(Text(harmless(remark), style="dim"), (0, 1)) for remark in section.remarks)
    if left_out:
        yield Padding(Text(f"No room for: {', '.join(left_out)}; any other format has them.", style="dim"), (0, 1))
    yield Text()
    if section.verdict is not None:
        yield Text(harmless(section.verdict.text), style=_style(section.verdict, strong=True))


def _plain(grid: Grid) -> list[_Column]:
    """The columns without group; the heading of a group of rows stands as a row with a name alone."""
    found = []
    for i in grid.under(""):
        column = grid.columns[i]
        folds = column.align == "left"
        parts = []
        for number, row in enumerate(grid.rows):
            if grid.blocks.get(number):
                parts.append([Text(harmless(grid.blocks[number]) if i == grid.head else "", style="bold")])
            parts.append(_parts(row[i]))
        found.append(
            _Column(column.title, parts, column.align, drops=column.drops, repeated=i == grid.head, folds=folds)
        )
    return found


def _stacked(grid: Grid) -> tuple[list[_Column], list[int]]:
    """The groups under one another, and the rows that end one; numbers without intervals."""
    rows = [(group, number) for group in grid.groups for number in range(len(grid.rows))]
    places = {(column.group, column.title): i for i, column in enumerate(grid.columns)}
    firsts = [[Text("" if number else harmless(group), style="bold")] for group, number in rows]
    names = [[_text(grid.rows[number][grid.head])] for _, number in rows]
    columns = [
        _Column(grid.grouping[0], firsts, repeated=True, folds=True),
        _Column(grid.columns[grid.head].title, names, repeated=True, folds=True),
    ]
    for title in grid.across or dict.fromkeys(column.title for column in grid.columns if column.group):
        found = [
            grid.rows[number][places[group, title]]
            if (group, title) in places
            else grid.absent(number, group, title)
            for group, number in rows
        ]
        values = [_parts(value, interval=False) for value in found]
        columns.append(_Column(title, [[Text("\n").join(parts)] for parts in values], "right"))
    return columns, [i for i, (_, number) in enumerate(rows) if number == len(grid.rows) - 1]


def _tables(columns: list[_Column], ends: Sequence[int], width: int, left_out: list[str]) -> Iterator[Table]:
    """The columns as one table, or as several where nothing else makes it fit."""
    gone = _squeezed(columns, width)
    left_out += [column.title for column in gone]
    kept, rest = ([c for c in columns if c not in gone and c.repeated is again] for again in (True, False))
    while rest or kept:
        fitting = 1
        while fitting < len(rest) and _width([*kept, *rest[: fitting + 1]]) <= width:
            fitting += 1
        chosen = [*kept, *rest[:fitting]]
        yield _table([column for column in columns if column in chosen], ends)
        rest = rest[fitting:]
        if not rest:
            return


def _squeezed(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Make the columns narrower until they fit, if they can; returns those that have to go."""
    if _width(columns) <= width:
        return []
    turns = sorted((column for column in columns if column.drops), key=lambda column: column.drops)
    attempts = [*((turns[:going], _LEGIBLE) for going in range(len(turns) + 1)), (turns, 1)]
    for gone, narrowest in attempts:
        left = [column for column in columns if column not in gone]
        for column in left:
            column.stack()
        _fold(left, width, narrowest)
        if _width(left) <= width:
            break
    return gone


def _fold(columns: Sequence[_Column], width: int, narrowest: int) -> None:
    """Fold words, those of the widest column first, until all fits or no column is wider than the narrowest."""
    words = [column for column in columns if column.folds]
    while words and (excess := _width(columns) - width) > 0:
        words.sort(key=lambda column: column.width)
        *others, widest = words
        spare = widest.width - (others[-1].width if others else 0)
        room = widest.width - max(1, min(excess, spare))
        if widest.width <= narrowest or not widest.fold(max(room, narrowest)):
            words.remove(widest)


def _table(columns: Sequence[_Column], ends: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text("\n").join(column.heading), justify=column.align, no_wrap=True)
    for i in range(len(columns[0].values)):
        table.add_row(*(Text("\n").join(column.values[i]) for column in columns), end_section=i in ends)
    return table


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width + _BETWEEN for column in columns) - _BETWEEN + _EDGES


def _style(value: Value, *, strong: bool = False) -> str:
    return " ".join(filter(None, ("bold" if strong or value.strong else "", _STYLE[value.tone])))


def _text(value: Value) -> Text:
    text = Text(harmless(value.text), style=_style(value))
    if isinstance(value, Number):
        for note in value.notes:
            text.append(f" [{note}]", style="yellow")
    if isinstance(value, Cited) and value.number:
        text.append(f" [{value.number}]", style="dim")
    return text


def _parts(value: Value, *, interval: bool = True) -> list[Text]:
    """The number with its notes, the published one, the interval."""
    found = [_text(value)]
    if isinstance(value, Number):
        found += [Text(harmless(f"({value.beside.text})"), style="dim")] if value.beside is not None else []
        found += [Text(harmless(value.interval), style="dim")] if interval and value.interval else []
    return found


def _least(text: str) -> int:
    """Columns that the longest piece takes."""
    ends = [0, *(found.end() for found in _BREAK.finditer(text)), len(text)]
    return max(cell_len(text[a:b].rstrip()) for a, b in pairwise(ends))


def _folded(text: Text, room: int) -> list[Text]:
    """Words on lines of at most so many columns, broken behind blanks and hyphens, else anywhere."""
    plain, start, cuts = text.plain, 0, []
    if text.cell_len <= room:
        return [text]
    begin = 0
    for end in (*(found.end() for found in _BREAK.finditer(plain)), len(plain)):
        if begin > start and cell_len(plain[start:end].rstrip()) > room:
            cuts.append(begin)
            start = begin
        while cell_len(plain[start:end].rstrip()) > room:
            start += max(
                1, next(n for n in range(end - start, -1, -1) if cell_len(plain[start : start + n]) <= room)
            )
            cuts.append(start)
        begin = end
    lines = list(text.divide(cuts))
    for line in lines:
        line.rstrip()
    return lines
