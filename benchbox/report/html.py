"""Documents as one HTML file that needs nothing else: no font, no network; a script for the leaderboard alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchbox.report.document import Badge, Cited, Number
from benchbox.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

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
    templates = environment("benchbox.report", number=Number, cited=Cited, badge=Badge)
    return templates.get_template("document.html.j2").render(document=document)


def environment(package: str, **kinds: type) -> Environment:
    """The templates of a package: all is escaped and harmless, and a name that is not there is an error.

    Args:
        package: Holds the folder `templates`.
        kinds: What templates ask values for: `value is number`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.tests |= {name: lambda value, of=of: isinstance(value, of) for name, of in kinds.items()}
    return found


def _harmless(value: object) -> object:
    """A name turns no text around; markup is ours."""
    return printable(value) if type(value) is str else value
