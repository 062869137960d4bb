"""Cells that differ in nothing but their sample list, and what one of them may take over from another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from benchbox.domain import Cell
from benchbox.store import adversarials, arrays, batches, cells, outcomes
from benchbox.store.batches import Batch
from benchbox.store.schema import BATCH, CELL, CRAFTING


def siblings(connection: Connection, cell: Cell) -> list[Cell]:
    """Cells that are the same on other images of the same split, and know something of them; newest first."""
    query = select(CELL).where(
        CELL.c.defense == cell.defense.name,
        CELL.c.dataset == cell.samples.dataset,
        CELL.c.access == str(cell.access),
        CELL.c.attack == cell.attack.name,
        CELL.c.key != cell.key,
        CELL.c.committed.is_not(None),
    )
    found = [cells.read(row) for row in connection.execute(query.order_by(CELL.c.id.desc()))]
    return [
        other
        for other in found
        if other.samples.split == cell.samples.split and replace(other, samples=cell.samples).key == cell.key
    ]


def take_over(
    connection: Connection, cell: Cell, other: Cell, source: NDArray[np.int64], target: NDArray[np.int64]
) -> int:
    """Copy outcomes and adversarial images; each batch keeps the run that computed it and its share of the time.

    Args:
        cell: Gets them.
        other: Has them.
        source: Positions on the other's list.
        target: Positions of the same images on the cell's list.

    Returns:
        How many outcomes the cell got.
    """
    place = np.full(len(other.samples), -1, np.int64)
    place[source] = target
    row = cells.find(connection, other)
    before = arrays.count(cells.find(connection, cell).committed)
    for batch in connection.execute(select(BATCH).where(BATCH.c.cell_id == row.id).order_by(BATCH.c.id)).all():
        cells.check_batch(row, other, batch)
        outcome = outcomes.decode(batch.outcome, other)
        wanted = outcomes.moved(outcome, place[outcome.position])
        if len(wanted):
            share = batch.seconds * len(wanted) / len(outcome)
            batches.commit(connection, [Batch(cell, wanted, share)], {cell.key: batch.run_id})
    _take_images(connection, cell, other, place)
    return arrays.count(cells.find(connection, cell).committed) - before


def _take_images(connection: Connection, cell: Cell, other: Cell, place: NDArray[np.int64]) -> None:
    if other.early_stop and not cell.early_stop:
        return  # those who go on from here ask another model about them
    key = other.craft_key
    there = arrays.positions(connection.scalar(select(CRAFTING.c.committed).where(CRAFTING.c.key == key)))
    wanted = there[place[there] >= 0]
    crafted = adversarials.load(connection, key, wanted) if len(wanted) else None
    if crafted is not None:
        clean = adversarials.load(connection, other.samples.clean_key, wanted)
        if clean is not None:
            clean = replace(clean, craft_key=cell.samples.clean_key, position=place[wanted])
        moved = replace(crafted, craft_key=cell.craft_key, position=place[wanted], clean=clean)
        adversarials.save(connection, [moved])
