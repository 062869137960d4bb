"""Looking through a whole store: what is damaged, what nothing vouches for, and making it whole again.

What is damaged is dropped, never guessed at: a cell that lost something is `partial` or gone, and the command that
made it runs it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Table, bindparam, delete, func, select, update

from benchbox.domain import Cell
from benchbox.errors import StoreError
from benchbox.store import adversarials, arrays, cells, seals
from benchbox.store.schema import ARTIFACT, ATTACHMENT, BATCH, CELL, CRAFTED, CRAFTING, RUN, SETTING

# Built once, and asked of every cell: building a statement takes longer than running it.
_BATCHES = select(BATCH).where(BATCH.c.cell_id == bindparam("cell")).order_by(BATCH.c.id)


@dataclass
class Diagnosis:
    """What a look through a store found.

    Attributes:
        cells: How many cells it has.
        damaged: What is not what was stored, a line each.
        unsealed: How many rows have no seal: they were stored by an earlier benchbox, and are believed.
    """

    cells: int = 0
    damaged: list[str] = field(default_factory=list)
    unsealed: int = 0


def examine(connection: Connection, *, repair: bool) -> Diagnosis:
    """Check every row.

    Args:
        repair: Drop what is damaged, and seal what has no seal.
    """
    found = Diagnosis()
    if repair and connection.dialect.name == "sqlite":
        connection.exec_driver_sql("REINDEX")  # an index that disagrees with its table hides rows
    _runs(connection, found, repair)
    _cells(connection, found, repair)
    _craftings(connection, found, repair)
    for table in (ARTIFACT, SETTING, ATTACHMENT):
        _records(connection, table, found, repair)
    return found


def _runs(connection: Connection, found: Diagnosis, repair: bool) -> None:
    """A run is not dropped, since its cells may be whole; what is not known of it any more is said."""
    for row in _rows(connection, RUN):
        if _is_whole(RUN, row, found):
            values: dict[str, Any] = dict(row._mapping)
        else:
            found.damaged.append(f"run {row.id}: what it was asked for and where it ran")
            lost = {"request": {}, "provenance": {"lost": "damaged in the store"}}
            values = seals.sealed(RUN, {"status": "damaged", **lost})
        if repair:
            _seal(connection, RUN, row, values)


def _cells(connection: Connection, found: Diagnosis, repair: bool) -> None:
    runs = set(connection.scalars(select(RUN.c.id)))
    for row in _rows(connection, CELL):
        try:
            cell = cells.read(row) if row.run_id in runs else None
        except StoreError:
            cell = None
        if cell is None:
            found.damaged.append(f"{cells.name_of(row)}: the cell itself")
            if repair:
                connection.execute(delete(BATCH).where(BATCH.c.cell_id == row.id))
                connection.execute(delete(CELL).where(CELL.c.id == row.id))
            continue
        found.cells += 1
        found.unsealed += row.seal is None
        _batches(connection, row, cell, found, repair)
    known = select(CELL.c.id)
    _orphans(connection, BATCH, BATCH.c.cell_id.not_in(known), "batches of no cell", found, repair)


def _batches(connection: Connection, row: Row[Any], cell: Cell, found: Diagnosis, repair: bool) -> None:
    kept: list[NDArray[np.int64]] = []
    for batch in connection.execute(_BATCHES, {"cell": row.id}).all():
        try:
            cells.check_batch(row, cell, batch)
        except StoreError:
            if repair:
                connection.execute(delete(BATCH).where(BATCH.c.id == batch.id))
            continue
        kept.append(arrays.unpack(batch.outcome, ("position",))["position"])
        found.unsealed += batch.seal is None
        if repair:
            _seal(connection, BATCH, batch, dict(batch._mapping), cell.key)
    there = arrays.positions(row.committed)
    positions = arrays.positions(arrays.bits(np.concatenate([there[:0], *kept])))
    values = dict(row._mapping)
    if not np.array_equal(positions, there) or sum(map(len, kept)) != len(positions):
        found.damaged.append(f"{cells.name_of(row)}: {len(there) - len(positions)} of {len(there)} outcomes")
        committed = arrays.bits(positions)
        values |= {"committed": committed, "status": cells.status(row, committed), "error": ""}
    if repair:
        _seal(connection, CELL, row, values)


def _craftings(connection: Connection, found: Diagnosis, repair: bool) -> None:
    # What was made of clean images that are damaged cannot be read any more, and goes with them.
    for row in _rows(connection, CRAFTING):
        kept, intact = [], seals.is_intact(CRAFTING, row)
        for number in connection.scalars(select(CRAFTED.c.id).where(CRAFTED.c.crafting_id == row.id)).all():
            piece = connection.execute(select(CRAFTED).where(CRAFTED.c.id == number)).one()
            try:
                kept.append(adversarials.decode(connection, row, piece).position)
            except StoreError:
                if repair:
                    connection.execute(delete(CRAFTED).where(CRAFTED.c.id == number))
                continue
            _is_whole(CRAFTED, piece, found)
            if repair:
                _seal(connection, CRAFTED, piece, dict(piece._mapping), row.key)
        positions = np.unique(np.concatenate([np.zeros(0, np.int64), *kept]))
        values = dict(row._mapping)
        if not intact or not np.array_equal(positions, arrays.positions(row.committed)):
            found.damaged.append(f"adversarial images {str(row.key)[:12]}")
            values["committed"] = arrays.bits(positions)
        elif row.seal is None:
            found.unsealed += 1
        if repair and intact:
            _seal(connection, CRAFTING, row, values)
        elif repair:
            connection.execute(delete(CRAFTED).where(CRAFTED.c.crafting_id == row.id))
            connection.execute(delete(CRAFTING).where(CRAFTING.c.id == row.id))
    known = select(CRAFTING.c.id)
    _orphans(connection, CRAFTED, CRAFTED.c.crafting_id.not_in(known), "images of no attack", found, repair)


def _records(connection: Connection, table: Table, found: Diagnosis, repair: bool) -> None:
    for row in _rows(connection, table):
        mine = [column == row._mapping[column.name] for column in table.primary_key]
        if _is_whole(table, row, found):
            if repair and row.seal is None:
                connection.execute(update(table).where(*mine).values(seal=seals.seal(table, dict(row._mapping))))
        else:
            found.damaged.append(f"{table.name} {' '.join(str(row._mapping[c.name]) for c in table.primary_key)}")
            if repair:
                connection.execute(delete(table).where(*mine))


def _rows(connection: Connection, table: Table) -> Iterator[Row[Any]]:
    yield from connection.execute(select(table).order_by(*table.primary_key.columns)).all()


def _is_whole(table: Table, row: Row[Any], found: Diagnosis) -> bool:
    """Whether a row is what was stored, as far as can be told; one without a seal is counted."""
    found.unsealed += row.seal is None
    return seals.is_intact(table, row)


def _orphans(connection: Connection, table: Table, where: Any, what: str, found: Diagnosis, repair: bool) -> None:
    if count := connection.scalar(select(func.count()).select_from(table).where(where)):
        found.damaged.append(f"{count} {what}")
        if repair:
            connection.execute(delete(table).where(where))


def _seal(connection: Connection, table: Table, row: Row[Any], values: dict[str, Any], of: str = "") -> None:
    """Write a row as it is now, with the seal that belongs to it."""
    new = {**values, "seal": seals.seal(table, values, of)}
    changed = {name: value for name, value in new.items() if name != "id" and value != row._mapping[name]}
    if changed:
        connection.execute(update(table).where(table.c.id == row.id).values(changed))
