"""Reports: evidence in, a page of text out. Reads no database and needs no torch.

render(evidence, "markdown")       for a README or an issue
render(evidence, "latex")          booktabs, for a paper
render(evidence, "html")           one file that needs nothing else
render(evidence, "csv" | "json")   every number, with what is needed to trust it
terminal(evidence)                 something `rich` can print
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchbox.analysis.known import NOTHING, Known
from benchbox.errors import unknown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from benchbox.domain import Evidence

#: Each format with "module:function" of its renderer, loaded when it is asked for.
FORMATS = {
    "markdown": "markdown:render",
    "csv": "plain:as_csv",
    "json": "plain:as_json",
    "latex": "latex:render",
    "html": "html:render",
}


def render(
    evidence: Sequence[Evidence],
    format: str,
    known: Known = NOTHING,
    *,
    against: str | None = None,
    standalone: bool = False,
) -> str:
    """Write a report.

    Args:
        evidence: What the store holds; finished cells and others.
        format: One of `FORMATS`.
        known: What is known of the defences and their weights.
        against: Name, label or digest of the defence that every other is compared with.
        standalone: For LaTeX: a document that compiles on its own instead of a fragment for a paper.

    Raises:
        RequestError: There is no such format, or nothing or too much to compare with.
    """
    if format not in FORMATS:
        raise unknown("report format", format, FORMATS)
    from benchbox.analysis import table

    module, _, function = FORMATS[format].partition(":")
    renderer = getattr(importlib.import_module(f"benchbox.report.{module}"), function)
    tables = table.build(evidence, known, against=against)
    text: str = renderer(tables, standalone=standalone) if format == "latex" else renderer(tables)
    return text


def terminal(
    evidence: Sequence[Evidence], known: Known = NOTHING, *, against: str | None = None
) -> RenderableType:
    """The report as something `rich` can print; options as for `render`."""
    from benchbox.analysis import table
    from benchbox.report.console import render as renderable

    return renderable(table.build(evidence, known, against=against))
