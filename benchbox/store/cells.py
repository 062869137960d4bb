"""Cells as rows: what they are, how far they have come, and the evidence they have become."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Select, func, insert, select, update

from benchbox.domain import Cell, Evidence
from benchbox.errors import StoreError
from benchbox.store import outcomes
from benchbox.store.schema import BATCH, CELL, OUTCOME, RUN


def add(connection: Connection, cell: Cell, run: int) -> int:
    """The cell's number; it gets one, and belongs to the run, if it has none yet."""
    known: int | None = connection.scalar(select(CELL.c.id).where(CELL.c.key == cell.key).with_for_update())
    if known is not None:
        return known
    values = {
        "key": cell.key,
        "run_id": run,
        "defense": cell.defense.name,
        "dataset": cell.samples.dataset,
        "access": str(cell.access),
        "attack": cell.attack.name,
        "samples": len(cell.samples),
        "status": "partial",
        "error": "",
        "record": cell.as_dict(),
    }
    key = connection.execute(insert(CELL).values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def find(connection: Connection, cell: Cell) -> tuple[int, int]:
    """Numbers of the cell and of the run that added it.

    Raises:
        StoreError: Nobody has added it.
    """
    # Locked, where rows can be (in SQLite the writer is alone): `settle` must count the batches of others too.
    query = select(CELL.c.id, CELL.c.run_id).where(CELL.c.key == cell.key).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise StoreError(f"cell {cell.key[:12]} is not in the store; add it with add_cell first")
    return row.id, row.run_id


def settle(connection: Connection, cell_id: int, cell: Cell) -> None:
    """Say `done` or `partial`, by what is there."""
    count = connection.scalar(select(func.count()).where(OUTCOME.c.cell_id == cell_id))
    status = "done" if count == len(cell.samples) else "partial"
    connection.execute(update(CELL).where(CELL.c.id == cell_id).values(status=status, error=""))


def evidence(connection: Connection, wanted: Select[tuple[int]]) -> Iterator[Evidence]:
    """What is known of the cells whose numbers a query names, in the order they were added."""
    rows = connection.execute(select(CELL).where(CELL.c.id.in_(wanted)).order_by(CELL.c.id)).all()
    spent = select(BATCH.c.cell_id, func.sum(BATCH.c.seconds)).group_by(BATCH.c.cell_id)
    seconds = dict(connection.execute(spent).all())
    provenances = dict(connection.execute(select(RUN.c.id, RUN.c.provenance)).all())
    for row in rows:
        cell = Cell.from_dict(row.record)
        yield Evidence(
            cell,
            outcomes.load(connection, row.id, cell),
            row.status,
            row.error,
            seconds.get(row.id, 0.0),
            row.run_id,
            row.created,
            provenances[row.run_id],
        )
