"""Joining stores whose parts were run apart: everything is checked against its seal, and nothing is averaged.

What both have is taken once if it is the same, and refused if it is not: two runs of one cell must agree image by
image, up to the rounding of distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Table, insert, select

from benchbox.domain import Cell, Outcome
from benchbox.errors import StoreError
from benchbox.store import adversarials, arrays, batches, cells, outcomes, seals
from benchbox.store.batches import Batch
from benchbox.store.database import connect, insert_missing, parse, transaction
from benchbox.store.records import is_same_training
from benchbox.store.schema import ARTIFACT, ATTACHMENT, BATCH, CELL, CRAFTED, CRAFTING, RUN, SETTING

#: What has to be the same of an image that two stores have; distances and passes may differ by rounding.
_DECIDED = ("label", "clean", "adversarial")
#: Likewise where one of the two searches stopped early: which wrong class an image is taken for may differ.
_BROKEN = ("label", "clean", "robust")


@dataclass
class Merged:
    """What a store gave.

    Attributes:
        cells: Cells that were not there before.
        images: Outcomes that were not there before.
        same: Outcomes that were there already, and are the same.
    """

    cells: int = 0
    images: int = 0
    same: int = 0


def merge(source: str | Path, target: str | Path) -> Merged:
    """Add everything a store has to another one, as a whole or not at all; the source is left as it is.

    Args:
        source: SQLite file or database URL.
        target: Likewise; made if it is not there.

    Raises:
        StoreError: Something is damaged, or the two contradict each other.
    """
    giving = connect(parse(source), must_exist=True)
    try:
        taking = connect(parse(target), must_exist=False)
        try:
            with transaction(giving, write=False) as there, transaction(taking, write=True) as here:
                return _merge(there, here, str(source))
        finally:
            taking.dispose()
    finally:
        giving.dispose()


def _merge(there: Connection, here: Connection, source: str) -> Merged:
    found = Merged()
    runs = _runs(there, here)
    for row in there.execute(select(CELL).order_by(CELL.c.id)).all():
        cell = cells.read(row)
        is_new = here.scalar(select(CELL.c.id).where(CELL.c.key == cell.key)) is None
        found.cells += is_new
        before = None if is_new else cells.find(here, cell)
        if before is None:
            cells.add(here, cell, runs[row.run_id])
        for batch in there.execute(select(BATCH).where(BATCH.c.cell_id == row.id).order_by(BATCH.c.id)).all():
            cells.check_batch(row, cell, batch)
            _batch(here, cell, outcomes.decode(batch.outcome, cell), batch, runs[batch.run_id], found, source)
        after = cells.find(here, cell)
        # What failed there failed, unless somebody has finished it.
        if row.status == "failed" and after.status == "partial":
            cells.change(here, after, status="failed", error=row.error)
        elif before is not None and before.status == "failed" and after.status == "partial":
            cells.change(here, after, status="failed", error=before.error)
    _craftings(there, here)
    for table in (ARTIFACT, SETTING, ATTACHMENT):
        _records(there, here, table, source)
    return found


def _runs(there: Connection, here: Connection) -> dict[int, int]:
    """The number that each run has here; one that was merged before keeps it."""
    known = {row.seal: row.id for row in here.execute(select(RUN)) if row.seal}
    numbers = {}
    for row in there.execute(select(RUN).order_by(RUN.c.id)).all():
        seals.check(RUN, row, f"run {row.id}")
        if row.seal in known:
            numbers[row.id] = known[row.seal]
            continue
        values = {name: value for name, value in row._mapping.items() if name not in ("id", "seal")}
        key = here.execute(insert(RUN).values(seals.sealed(RUN, values))).inserted_primary_key
        assert key is not None
        numbers[row.id] = int(key[0])
    return numbers


def _batch(
    here: Connection, cell: Cell, outcome: Outcome, batch: Row[Any], run: int, found: Merged, source: str
) -> None:
    row = cells.find(here, cell)
    decided = _DECIDED if cells.read(row).early_stop == cell.early_stop else _BROKEN
    known = arrays.positions(row.committed)
    if np.isin(outcome.position, known).any():
        for mine in here.execute(select(BATCH).where(BATCH.c.cell_id == row.id)).all():
            cells.check_batch(row, cell, mine)
            _require_same(cell, outcomes.decode(mine.outcome, cell), outcome, decided, source)
    new = outcomes.without(outcome, known)
    found.images += len(new)
    found.same += len(outcome) - len(new)
    if len(new):
        made = Batch(cell, new, batch.seconds * len(new) / len(outcome))
        batches.commit(here, [made], {cell.key: run})


def _require_same(cell: Cell, ours: Outcome, theirs: Outcome, decided: Sequence[str], source: str) -> None:
    _, mine, other = np.intersect1d(ours.position, theirs.position, return_indices=True)
    differ = np.zeros(len(mine), bool)
    for name in decided:
        differ |= (getattr(ours, name)[mine] != getattr(theirs, name)[other]).reshape(len(mine), -1).any(1)
    if differ.any():
        raise StoreError(
            f"{source} contradicts what is there: {int(differ.sum())} images of cell {cell.key[:12]} "
            f"({cell.defense.name}, {cell.access}, {cell.attack.name} on {cell.samples.dataset}) ended otherwise; "
            "`benchbox remove cells` takes one of the two out"
        )


def _craftings(there: Connection, here: Connection) -> None:
    for row in there.execute(select(CRAFTING).order_by(CRAFTING.c.id)).all():
        adversarials.check(row)
        pieces = select(CRAFTED.c.id).where(CRAFTED.c.crafting_id == row.id).order_by(CRAFTED.c.id)
        for number in there.scalars(pieces).all():  # one at a time: a store may be larger than the memory
            piece = there.execute(select(CRAFTED).where(CRAFTED.c.id == number)).one()
            adversarials.save(here, [adversarials.decode(there, row, piece)])


def _records(there: Connection, here: Connection, table: Table, source: str) -> None:
    """What is known of weights, layouts and cells; of two records the one that is here stays."""
    ours = {row.digest: row.card for row in here.execute(select(ARTIFACT))} if table is ARTIFACT else {}
    for row in there.execute(select(table)).all():
        values: dict[str, Any] = dict(row._mapping)
        seals.check(table, row, f"{table.name} {' '.join(str(values[c.name])[:80] for c in table.primary_key)!r}")
        content = {name: value for name, value in values.items() if name != "seal"}
        if table is ARTIFACT and not is_same_training(ours.get(row.digest, row.card), row.card):
            raise StoreError(
                f"{source} has weights {row.digest[:12]} of another training than what is there: one recipe came "
                "out differently on two machines; train once and copy the weights, or name another --seeds"
            )
        here.execute(insert_missing(here, table).values(seals.sealed(table, content)))
