"""Reports: documents in, text out. Reads no database and needs no torch.

report.tabulate(evidence)              the leaderboard of some evidence
report.paper_table(evidence, layout=…) a table in the shape of the PSSR paper's
report.render(document, "markdown")    for a README or an issue; FORMATS has the others
report.renderable(document)            something `rich` can print, as wide as its window

A format is one module with one function; leaderboard, paper_tables, comparison, findings and difference make the
documents.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchbox.errors import unknown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from benchbox.analysis.background import Background
    from benchbox.analysis.paper_layout import Layout
    from benchbox.domain import Evidence
    from benchbox.report.document import Document

#: Each format with "module:function" of its renderer, loaded when it is asked for.
FORMATS: dict[str, str] = {
    "terminal": "benchbox.report.terminal:render",
    "markdown": "benchbox.report.markdown:render",
    "latex": "benchbox.report.latex:render",
    "html": "benchbox.report.html:render",
    "csv": "benchbox.report.csv:render",
    "json": "benchbox.report.json:render",
}


def known_format(name: str) -> str:
    """The name of a format, as it was given.

    Raises:
        RequestError: There is no such format.
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS, f"use one of {', '.join(FORMATS)}")
    return name


def render(document: Document, format: str, **options: Any) -> str:
    """Write a document.

    Args:
        document: What to write.
        format: One of `FORMATS`.
        options: Those of the format: `standalone` for LaTeX that compiles on its own, `width` for the terminal.

    Raises:
        RequestError: There is no such format.
    """
    module, _, function = FORMATS[known_format(format)].partition(":")
    text: str = getattr(importlib.import_module(module), function)(document, **options)
    return text


def renderable(document: Document) -> RenderableType:
    """The document as something `rich` can print."""
    from benchbox.report.terminal import Pages

    return Pages(document)


def tabulate(
    evidence: Sequence[Evidence], known: Background | None = None, *, against: str | None = None
) -> Document:
    """The leaderboard of some evidence.

    Args:
        evidence: What the store holds; finished cells and others.
        known: What is known of the defences and their weights.
        against: Name, label or digest of the defence that every other is compared with.

    Raises:
        RequestError: There is nothing or too much to compare with.
    """
    from benchbox.analysis import leaderboard as analysis
    from benchbox.analysis.background import NOTHING
    from benchbox.report import leaderboard

    return leaderboard.document(analysis.build(evidence, known or NOTHING, against=against))


def paper_table(
    evidence: Sequence[Evidence],
    known: Background | None = None,
    *,
    layout: Layout,
    paper: bool = False,
    intervals: bool = False,
) -> Document:
    """A table in the shape of the PSSR paper's, with the numbers of some evidence.

    Args:
        evidence: What the store holds; finished cells and others.
        known: What is known of the defences and their weights.
        layout: Which table, or which rows, columns, data sets and accesses.
        paper: Print the paper's numbers beside ours.
        intervals: Print 95 % intervals.

    Raises:
        RequestError: Nobody knows a row, a column or a data set of the layout.
    """
    from benchbox.analysis.background import NOTHING
    from benchbox.analysis.leaderboard import build
    from benchbox.analysis.paper_table import arrange
    from benchbox.report import paper_tables

    known = known or NOTHING
    arranged = arrange(build(evidence, known), layout)
    return paper_tables.document(arranged, paper_tables.Shown(paper, intervals), known.papers)
