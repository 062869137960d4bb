"""Tables for a terminal of 100 columns: first who stands where, then every attack, access by access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from benchbox.analysis.entry import Entry
from benchbox.analysis.records import Column, Row, Table

_STYLE = {"done": "", "same": "", "partial": "yellow", "failed": "red", "not run": "dim", "withheld": "red"}
_BADGE = {
    "withdrawn": "bold red",
    "masking": "red",
    "weak attack": "red",
    "warned": "yellow",
    "not audited": "dim",
}


def render(tables: Sequence[Table]) -> RenderableType:
    """Something `rich` can print."""
    if not tables:
        return Text("No results yet.")
    return Group(*(part for table in tables for part in _parts(table)))


def _parts(table: Table) -> Iterator[RenderableType]:
    yield Text(table.title, style="bold")
    yield _headlines(table)
    yield _attacks(table)
    for number, note in enumerate(table.notes, start=1):
        yield Padding(Text(f"[{number}] {note}", style="yellow"), (0, 1))
    for remark in table.remarks:
        yield Padding(Text(remark, style="dim"), (0, 1))
    yield Text()


def _headlines(table: Table) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("#", justify="right")
    grid.add_column("defence", overflow="fold")
    for heading in ("clean", "robust"):
        grid.add_column(heading, justify="right", no_wrap=True)
    if table.against:
        grid.add_column(Text(f"vs {table.against}"), justify="right")
    grid.add_column("lowest", overflow="fold")
    grid.add_column("attacks", justify="right")
    grid.add_column("n", justify="right")
    grid.add_column("audit", overflow="fold")
    for row in table.rows:
        grid.add_row(
            row.place,
            Text(row.label),
            _clean(row.clean),
            _robust(row),
            *([_versus(row)] if table.against else []),
            Text(str(row.set_by or "–")),
            str(row.over),
            str(row.robust.n if row.robust else len(table.samples)),
            Text(str(row.badge), style=_BADGE.get(row.badge.state, "")),
        )
    return grid


def _attacks(table: Table) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("access")
    grid.add_column("defence", overflow="fold")
    for attack in table.attacks:
        grid.add_column(Text(attack), justify="right", overflow="fold")
    for access in table.accesses:
        for row in table.rows:
            cells = [_figure(entry) for entry in row.under(Column(access, a) for a in table.attacks)]
            first = Text(access if row is table.rows[0] else "", style="bold")
            grid.add_row(first, Text(row.label), *cells, end_section=row is table.rows[-1])
    return grid


def _robust(row: Row) -> Text:
    text = Text(row.headline, style="bold")
    return text.append(f" {row.robust.interval}", style="dim not bold") if row.robust else text


def _versus(row: Row) -> Text:
    if row.versus is None:
        return Text("–")
    text = Text(str(row.versus), style="bold" if row.versus.significant else "")
    return text.append(f" {row.versus.interval}", style="dim not bold")


def _clean(entry: Entry) -> Text:
    text = _figure(entry, between=" ")
    return text.append(f" {entry.score.interval}", style="dim") if entry.score else text


def _figure(entry: Entry, between: str = "\n") -> Text:
    """The number, the numbers of its notes, and the paper's in parentheses."""
    text = Text(entry.figure, style=_STYLE[entry.status])
    for note in entry.notes:
        text.append(f" [{note}]", style="yellow")
    if entry.paper is not None:
        text.append(f"{between}({entry.paper})", style="dim")
    return text
