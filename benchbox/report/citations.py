"""The papers behind the names of a table: in the order they are first named, each once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from benchbox.analysis import references
from benchbox.errors import RequestError
from benchbox.report.document import Source

#: Of BibTeX keys: what \cite takes as it is.
_CITABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:./+-]*")


class Citations:
    """What some defences cite.

    Args:
        names: Of the defences, in the order they are printed.
        entries: BibTeX of the defences that bring it.
    """

    def __init__(self, names: Iterable[str], entries: Mapping[str, str]) -> None:
        found: dict[str, references.Reference] = {}
        for name in dict.fromkeys(names):
            reference = _reference(name, entries.get(name, ""))
            if reference and _CITABLE.fullmatch(reference.key):
                found[name] = reference
        own = {reference.key: reference for reference in found.values()}
        self.sources = [Source(key, own[key].said, own[key].bibtex) for key in own]
        self._places = {name: (ref.key, list(own).index(ref.key) + 1) for name, ref in found.items()}

    def place(self, name: str) -> tuple[str, int]:
        """Key of a defence's paper and its number from 1; "" and 0 where nobody has named one."""
        return self._places.get(name, ("", 0))


def _reference(name: str, card: str) -> references.Reference | None:
    """The paper of a defence; an entry that is none costs the citation, not the table."""
    try:
        return references.of(name, card)
    except RequestError:
        return None
