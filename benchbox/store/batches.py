"""Batches as they are committed: any number of them at once, each kept as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from benchbox.domain import Cell, Outcome
from benchbox.store import adversarials, arrays, cells, outcomes, seals
from benchbox.store.images import Adversarials
from benchbox.store.schema import BATCH


@dataclass(frozen=True)
class Batch:
    """What happened to some samples of a cell.

    Attributes:
        cell: The cell.
        outcome: Of positions of its list.
        seconds: What the batch took.
        crafted: The adversarial images, to be kept for other cells of the same craft key.
        encoded: The outcome as it is kept, where whoever made it has packed it; packed here otherwise.
    """

    cell: Cell
    outcome: Outcome
    seconds: float
    crafted: Adversarials | None = None
    encoded: bytes | None = None


# Built once: building a statement takes longer than running it.
_INSERT = BATCH.insert()


def commit(connection: Connection, made: Sequence[Batch], runs: Mapping[str, int]) -> dict[str, bytes | None]:
    """Keep batches. Of positions that are there already, what is there stays.

    Args:
        connection: Of a transaction that writes.
        made: The batches.
        runs: The run that made them, by key of the cell; that of the cell by default.

    Returns:
        The positions that are there now, by key of each cell and each crafting.
    """
    rows = cells.find_all(connection, {batch.cell.key for batch in made})
    committed = {key: row.committed for key, row in rows.items()}
    new = []
    for batch in made:
        key, row = batch.cell.key, rows[batch.cell.key]
        is_known = arrays.among(committed[key], batch.outcome.position)
        is_whole = not is_known.any()
        outcome = batch.outcome if is_whole else batch.outcome.rows(~is_known)
        if len(outcome) == 0:
            continue
        values = {
            "cell_id": row.id,
            "run_id": runs.get(key, row.run_id),
            "samples": len(outcome),
            "seconds": float(batch.seconds),
            "outcome": batch.encoded if batch.encoded and is_whole else outcomes.encode(outcome),
        }
        new.append(seals.sealed(BATCH, values, key))
        committed[key] = arrays.bits(outcome.position, committed[key])
    if new:
        connection.execute(_INSERT, new)
    cells.change_all(
        connection,
        [
            (row, {"committed": committed[key], "status": cells.status(row, committed[key]), "error": ""})
            for key, row in rows.items()
            if committed[key] != row.committed
        ],
    )
    crafted = adversarials.save(connection, [batch.crafted for batch in made if batch.crafted is not None])
    return committed | crafted
