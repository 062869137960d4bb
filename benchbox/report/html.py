"""Documents as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchbox.report.document import Badge, Cited, Number

if TYPE_CHECKING:
    from benchbox.report.document import Document


def render(document: Document) -> str:
    """A whole page."""
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
