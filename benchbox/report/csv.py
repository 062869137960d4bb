"""The long form of a document as CSV: one line a number, unrounded, empty where a field has no meaning."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchbox.report.document import Document


def render(document: Document) -> str:
    """Its lines, under a line of names."""
    out = io.StringIO()
    writer = csv.DictWriter(out, document.fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document.lines())
    return out.getvalue()
