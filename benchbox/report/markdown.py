"""Tables for a README, an issue or a note: GitHub's flavour of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from benchbox.analysis.entry import Entry
from benchbox.analysis.records import Row, Table

_MARKUP = re.compile(r"([\\`*_\[\]|~#$])")


def render(tables: Sequence[Table]) -> str:
    """One section for each table."""
    if not tables:
        return "No results yet.\n"
    return "\n".join(line for table in tables for line in _section(table))


def escape(text: str) -> str:
    """Text that Markdown prints as it is, on one line."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _section(table: Table) -> Iterator[str]:
    yield f"### {escape(table.title)}\n"
    versus = [escape(f"vs {table.against}")] if table.against else []
    yield from _grid(
        ["#", "defence", "clean", "robust", *versus, "lowest", "attacks", "n", "audit"],
        [
            [
                row.place,
                escape(row.label),
                _figure(row.clean),
                f"**{row.headline}** {_small(row.robust.interval)}" if row.robust else row.headline,
                *([_versus(row)] if versus else []),
                escape(str(row.set_by or "–")),
                str(row.over),
                str(row.robust.n if row.robust else len(table.samples)),
                escape(str(row.badge)),
            ]
            for row in table.rows
        ],
        text_columns=(1, 4 + len(versus), 7 + len(versus)),
    )
    for access in table.accesses:
        columns = table.under(access)
        yield f"**{access}**\n"
        yield from _grid(
            ["defence", *(escape(column.attack) for column in columns)],
            [[escape(row.label), *(_figure(row.entries[column]) for column in columns)] for row in table.rows],
            text_columns=(0,),
        )
    yield from (f"{number}. {escape(note)}" for number, note in enumerate(table.notes, start=1))
    if table.notes:
        yield ""
    yield from (f"- {escape(remark)}" for remark in table.remarks)
    yield ""


def _grid(header: list[str], rows: list[list[str]], text_columns: tuple[int, ...]) -> Iterator[str]:
    yield _line(header)
    yield _line([":---" if i in text_columns else "---:" for i in range(len(header))])
    yield from map(_line, rows)
    yield ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _versus(row: Row) -> str:
    return f"{escape(str(row.versus))} {_small(row.versus.interval)}" if row.versus else "–"


def _figure(entry: Entry) -> str:
    parts = [entry.figure, *(f"<sup>{note}</sup>" for note in entry.notes)]
    if entry.score is not None:
        parts.append(_small(entry.score.interval))
    if entry.paper is not None:
        parts.append(f"({entry.paper})")
    return " ".join(parts)


def _small(interval: str) -> str:
    return f"<sub>{escape(interval)}</sub>"
