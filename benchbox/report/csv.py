"""The long form of a document as CSV: one line a number, unrounded, empty where a field has no meaning."""

from __future__ import annotations

import csv
import io
from functools import cache
from typing import TYPE_CHECKING

from benchbox.text import spreadsheet_text

if TYPE_CHECKING:
    import pandas as pd

    from benchbox.report.document import Document


def render(document: Document) -> str:
    """Its lines, under a line of names."""
    out = io.StringIO()
    writer = csv.DictWriter(out, document.fields, restval="", lineterminator="\n")
    writer.writerow({name: spreadsheet_text(name) for name in document.fields})
    harmless = cache(spreadsheet_text)  # words repeat; numbers are none, and 1 and 1.0 are one to a cache
    writer.writerows(
        {key: harmless(value) if isinstance(value, str) else value for key, value in line.items()}
        for line in document.lines()
    )
    return out.getvalue()


def of_frame(frame: pd.DataFrame) -> str:
    """A table of pandas' as CSV. Nothing in it is a formula either; words repeat, so each is looked at once."""
    harmless = frame.copy()
    for name in frame.select_dtypes(["object", "string"]):
        harmless[name] = frame[name].map({word: spreadsheet_text(word) for word in frame[name].unique()})
    names = [str(spreadsheet_text(name)) for name in frame.columns]
    return harmless.to_csv(index=False, header=names, lineterminator="\n")
