"""Taking cells and runs out of a store, with everything that only they used."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, or_, select

from benchbox.domain import Cell
from benchbox.errors import StoreError
from benchbox.store import arrays, cells
from benchbox.store.schema import ATTACHMENT, BATCH, CELL, CRAFTED, CRAFTING, RUN


def remove_cells(connection: Connection, keys: Sequence[str]) -> None:
    """Remove cells: outcomes, what is attached to them, and adversarial images that no other cell uses."""
    rows = connection.execute(select(CELL).where(CELL.c.key.in_(keys)).with_for_update()).all()
    numbers = [row.id for row in rows]
    connection.execute(delete(BATCH).where(BATCH.c.cell_id.in_(numbers)))
    connection.execute(delete(CELL).where(CELL.c.id.in_(numbers)))
    connection.execute(delete(ATTACHMENT).where(ATTACHMENT.c.subject.in_([row.key for row in rows])))
    gone = [cells.read(row) for row in rows]
    unused = {cell.craft_key for cell in gone} - _crafts_like(connection, gone)
    unused |= {cell.samples.clean_key for cell in gone} - _lists_like(connection, gone)
    mine = select(CRAFTING.c.id).where(CRAFTING.c.key.in_(unused))
    connection.execute(delete(CRAFTED).where(CRAFTED.c.crafting_id.in_(mine)))
    connection.execute(delete(CRAFTING).where(CRAFTING.c.key.in_(unused)))


def remove_run(connection: Connection, run: int) -> None:
    """Remove a run with the cells that it added and the batches that it computed for cells of others."""
    keys = connection.scalars(select(CELL.c.key).where(CELL.c.run_id == run)).all()
    remove_cells(connection, keys)
    for number in set(connection.scalars(select(BATCH.c.cell_id).where(BATCH.c.run_id == run))):
        row = connection.execute(select(CELL).where(CELL.c.id == number).with_for_update()).one()
        connection.execute(delete(BATCH).where(BATCH.c.run_id == run, BATCH.c.cell_id == number))
        committed = b""
        for batch in connection.execute(select(BATCH).where(BATCH.c.cell_id == number)).all():
            cells.check_batch(row, cells.read(row), batch)
            committed = arrays.bits(arrays.unpack(batch.outcome)["position"], committed)
        cells.change(connection, row, committed=committed, status=cells.status(row, committed))
    if connection.execute(delete(RUN).where(RUN.c.id == run)).rowcount == 0:
        raise StoreError(f"there is no run {run} in the store; `benchbox list runs` has their numbers")


def _crafts_like(connection: Connection, gone: Sequence[Cell]) -> set[str]:
    """Craft keys of the cells that are left and might share images with those that are gone."""
    alike = [
        (CELL.c.attack == attack) & (CELL.c.dataset == dataset)
        for attack, dataset in {(cell.attack.name, cell.samples.dataset) for cell in gone}
    ]
    if not alike:
        return set()
    return {cells.read(row).craft_key for row in connection.execute(select(CELL).where(or_(*alike)))}


def _lists_like(connection: Connection, gone: Sequence[Cell]) -> set[str]:
    """Names of the clean images of the cells that are left and might share a list with those that are gone."""
    alike = [
        (CELL.c.dataset == dataset) & (CELL.c.samples == count)
        for dataset, count in {(cell.samples.dataset, len(cell.samples)) for cell in gone}
    ]
    if not alike:
        return set()
    return {cells.read(row).samples.clean_key for row in connection.execute(select(CELL).where(or_(*alike)))}
