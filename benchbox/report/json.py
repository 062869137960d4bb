"""The record of a document as JSON: everything it knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchbox.report.document import Document


def render(document: Document) -> str:
    """Its record; a number that is none is a mistake of ours."""
    return json.dumps(document.record(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
