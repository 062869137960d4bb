"""What an attacker who knows so much, and no more, leaves of a defence: the worst case within each access."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchbox.analysis.access import is_same_model
from benchbox.analysis.score import Entry, Status, united
from benchbox.analysis.survival import ORDER
from benchbox.analysis.worst_case import by_draws
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
        attacks: How many they and the table's columns under this access are.
    """

    access: Access
    entry: Entry
    finished: int
    attacks: int


def by_access(table: Table, row: Row) -> list[UnderAccess]:
    """One for each access of the table, from the attacker who knows most to the one who knows least.

    Where an access is the same model as white-box, whatever broke the one broke the other. What a row was attacked
    with counts also where the table has no column for it.
    """
    return [_under(access, table, row) for access in ORDER if table.under(access)]


def _under(access: Access, table: Table, row: Row) -> UnderAccess:
    white = [entry for column, entry in row.own.items() if column.access is Access.WHITE_BOX]
    same = not row.purifier and is_same_model(access, [m.evidence for entry in white for m in entry.measurements])
    measured_as = Access.WHITE_BOX if same else access
    own = {column.attack: entry for column, entry in row.own.items() if column.access is measured_as}
    measurements = tuple(m for entry in own.values() for m in entry.measurements)
    done = sorted((m.evidence for m in measurements if m.status == "done"), key=by_draws)
    status = _status([entry.status for entry in own.values()])
    entry = Entry(
        "same" if same and status == "done" else status,
        united(done, with_clean=True),
        measurements=measurements,
        where=str(measured_as),
    )
    asked = {column.attack for column in table.under(access)}.union(own)
    return UnderAccess(access, entry, sum(e.status == "done" for e in own.values()), len(asked))


def _status(found: Collection[Status]) -> Status:
    if not found:
        return "not run"
    if len({*found}) == 1:
        return next(iter(found))
    return "withheld" if "withheld" in found else "done" if "done" in found else "partial"
