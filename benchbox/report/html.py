"""Documents as one HTML file that needs nothing else: no font, no network; a script for the leaderboard alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchbox.report.document import Badge, Cited, Number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbox.analysis.table import Table
    from benchbox.report.document import Document, Draw


def nothing(tables: Sequence[Table]) -> list[dict[str, str]]:
    """No picture for any table."""
    return [{} for _ in tables]


def render(document: Document, draw: Draw = nothing) -> str:
    """A whole page: the document's own where it has one, else everything from top to bottom.

    Args:
        document: What to write.
        draw: Makes the pictures of the document's own page. Reports cannot draw; their caller may.
    """
    if document.page is not None:
        return document.page(document, draw)
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("benchbox.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["number"] = lambda value: isinstance(value, Number)
    environment.tests["cited"] = lambda value: isinstance(value, Cited)
    environment.tests["badge"] = lambda value: isinstance(value, Badge)
    return environment.get_template("document.html.j2").render(document=document)
