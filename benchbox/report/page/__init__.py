"""The leaderboard as a page to click through: one HTML file with its table component, its script and its data.

board.py      the table of each tab: the document's own columns, and those that only a page has room for
bar.py        a number for the eye
drill.py      what a click on a row opens
templates/    the words and the markup; leaderboard.css and leaderboard.js beside them
vendor/       DataTables (MIT): sorting and searching
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from benchbox.report.document import Badge, Number
from benchbox.report.html import environment
from benchbox.report.page.bar import bar
from benchbox.report.page.board import board

if TYPE_CHECKING:
    from benchbox.analysis.table import Table
    from benchbox.report.document import Document

#: In the order they run.
SCRIPTS = ("vendor/dataTables.min.js", "leaderboard.js")


def render(document: Document, tables: Sequence[Table], pictures: Sequence[Mapping[str, str]]) -> str:
    """The page of a leaderboard; equal results give equal bytes.

    Args:
        document: The leaderboard, a section for each table.
        tables: What its sections show.
        pictures: For each table, SVG text by `Spec.identity` of a recipe, as far as there is any.
    """
    from markupsafe import Markup

    templates = environment("benchbox.report.page", number=Number, badge=Badge)
    templates.globals["bar"] = bar
    templates.filters["marked"] = lambda picture: Markup(picture)  # drawn by us: its names are escaped already
    scripts = [_asset(name) for name in SCRIPTS]
    return templates.get_template("page.html.j2").render(
        tabs=board(document, tables, pictures),
        style=Markup(_asset("leaderboard.css")),
        scripts=[Markup(script) for script in scripts],
        licence=Markup(_asset("vendor/dataTables.LICENSE.txt")),
        hashes=[_hash(script) for script in scripts],
    )


def _asset(name: str) -> str:
    return files("benchbox.report.page").joinpath(name).read_text(encoding="utf-8").strip()


def _hash(script: str) -> str:
    """Of the one script that may run, for the page's security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
