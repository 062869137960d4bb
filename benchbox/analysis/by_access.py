"""What an attacker who knows so much, and no more, leaves of a defence: the worst case within each access."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchbox.analysis.score import Entry, Status, united
from benchbox.analysis.survival import ORDER
from benchbox.domain import Access

if TYPE_CHECKING:
    from benchbox.analysis.table import Row, Table


@dataclass(frozen=True)
class UnderAccess:
    """The attacks on one row under one access, taken together.

    Attributes:
        access: What their attackers know.
        entry: Per-sample worst case over the clean image and every finished attack; its measurements are theirs.
        finished: How many of the attacks have a number.
        attacks: How many the table has under this access.
    """

    access: Access
    entry: Entry
    finished: int
    attacks: int


def by_access(table: Table, row: Row) -> list[UnderAccess]:
    """One for each access of the table, from the attacker who knows most to the one who knows least.

    Where an access is the same model as white-box, whatever broke the one broke the other.
    """
    found = {access: _under(access, row.under(table.under(access))) for access in ORDER if table.under(access)}
    white = found.get(Access.WHITE_BOX)
    return [
        replace(white, access=access, entry=replace(white.entry, status="same"))
        if white is not None and one.entry.status == "same"
        else one
        for access, one in found.items()
    ]


def _under(access: Access, entries: list[Entry]) -> UnderAccess:
    measurements = tuple(m for entry in entries for m in entry.measurements)
    done = [m.evidence for m in measurements if m.status == "done"]
    entry = Entry(_status(entries), united(done, with_clean=True), measurements=measurements, where=str(access))
    return UnderAccess(access, entry, sum(e.status in ("done", "same") for e in entries), len(entries))


def _status(entries: list[Entry]) -> Status:
    found = {entry.status for entry in entries} - {"not run"}
    if not found:
        return "not run"
    if len(found) == 1:
        (only,) = found
        return only
    return "withheld" if "withheld" in found else "done" if found & {"done", "same"} else "partial"
