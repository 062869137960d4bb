"""Documents for a README, an issue or a note: GitHub's flavour of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from benchbox.report.document import Cited, Number
from benchbox.text import harmless

if TYPE_CHECKING:
    from benchbox.report.document import Document, Grid, Section, Value

#: A lone # is a heading of a column.
_MARKUP = re.compile(r"([\\`*_\[\]|~$]|#(?=.))")


def render(document: Document) -> str:
    """A heading and its tables for each section."""
    return "\n".join(line for section in document.sections for line in _section(section)) or "No results yet.\n"


def escape(text: str) -> str:
    """Text that Markdown prints as it is, on one line."""
    return _MARKUP.sub(r"\\\1", html.escape(harmless(text), quote=False))


def _section(section: Section) -> Iterator[str]:
    yield f"### {escape(section.title)}\n"
    yield from [f"{escape(section.caption)}\n"] if section.caption else []
    for grid in section.grids:
        yield from _table(grid, grid.under(""))
        for group in grid.groups:
            yield f"**{escape(group)}**\n"
            yield from _table(grid, [grid.head, *grid.under(group)])
    yield from (f"{number}. {escape(note)}" for number, note in enumerate(section.notes, start=1))
    # With their numbers in brackets, as they are cited; two blanks end a line.
    yield from (f"\\[{number}\\] {escape(source.text)}  " for number, source in enumerate(section.cited, start=1))
    if section.notes or section.cited:
        yield ""
    yield from (f"- {escape(line)}" for line in (*section.sentences, *section.remarks))
    yield ""
    if section.verdict is not None:
        yield f"#### {escape(section.verdict.text)}\n"


def _table(grid: Grid, chosen: Sequence[int]) -> Iterator[str]:
    columns = [grid.columns[i] for i in chosen]
    yield _line([escape(column.title) for column in columns])
    yield _line([":---" if column.align == "left" else "---:" for column in columns])
    for number, row in enumerate(grid.rows):
        if grid.blocks.get(number):
            yield _line([f"**{escape(grid.blocks[number])}**" if i == grid.head else "" for i in chosen])
        yield _line([_value(row[i]) for i in chosen])
    yield ""


def _line(cells: Sequence[str]) -> str:
    # An empty cell takes one blank, not two.
    return f"| {' | '.join(cells)} |" if cells[0] else f"| | {' | '.join(cells[1:])} |"


def _value(value: Value) -> str:
    text = f"**{escape(value.text)}**" if value.strong else escape(value.text)
    if isinstance(value, Cited) and value.number:
        return f"{text} \\[{value.number}\\]"
    if not isinstance(value, Number):
        return text
    parts = [text, *(f"<sup>{note}</sup>" for note in value.notes)]
    if value.interval:
        parts.append(f"<sub>{escape(value.interval)}</sub>")
    if value.beside is not None:
        parts.append(f"({escape(value.beside.text)})")
    return " ".join(parts)
