"""The record of a document as JSON: everything it knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchbox.text import UNPRINTABLE

if TYPE_CHECKING:
    from benchbox.report.document import Document

#: Levels that are spread over lines; what lies deeper stands on one line, as plain lists do.
SPREAD = 8


def render(document: Document) -> str:
    """Its record; a number that is none is a mistake of ours."""
    return "".join(_spread(document.record(), 0)) + "\n"


def _spread(value: Any, level: int) -> Iterator[str]:
    """The text of a value, a member a line: the encoder's own indentation takes ten times as long."""
    if level == SPREAD or not _holds_more(value):
        yield _written(value)
        return
    named = isinstance(value, Mapping)
    pairs = value.items() if isinstance(value, Mapping) else ((None, member) for member in value)
    line = "\n" + "  " * (level + 1)
    yield "{" if named else "["
    for number, (name, member) in enumerate(pairs):
        key = f"{_written(name)}: " if named else ""
        yield f"{',' if number else ''}{line}{key}"
        yield from _spread(member, level + 1)
    yield "\n" + "  " * level + ("}" if named else "]")


def _written(value: Any) -> str:
    """On one line; what a terminal obeys or nobody sees stands as JSON's own escape, so nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return UNPRINTABLE.sub(lambda found: json.dumps(found.group())[1:-1], text)


def _holds_more(value: Any) -> bool:
    """Whether there is something to spread: an object, or a list of objects or lists."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list | tuple) and any(isinstance(member, Mapping | list | tuple) for member in value)
