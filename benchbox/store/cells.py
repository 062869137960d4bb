"""Cells as rows: what they are, how far they have come, and the evidence they have become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, bindparam, select, update

from benchbox.canonical import digest
from benchbox.domain import DECLARED, Cell, Evidence, Outcome
from benchbox.errors import BenchboxError, StoreError
from benchbox.store import arrays, outcomes, seals
from benchbox.store.database import insert_missing
from benchbox.store.packed import Packed
from benchbox.store.schema import BATCH, CELL, CRAFTING, RUN
from benchbox.text import masked_record

#: What a record that is none may lead to.
_BROKEN = (
    BenchboxError,
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class CellRecord:
    """A cell and how far it has come, without its outcomes.

    Attributes:
        cell: What was run.
        status: `done`, `partial` or `failed`.
        error: Why it failed.
        committed: How many of its samples are there.
        run: The run that added it.
        created: When, ISO 8601, UTC.
    """

    cell: Cell
    status: str
    error: str
    committed: int
    run: int
    created: str


@dataclass(frozen=True)
class Progress:
    """How far a cell is, as sets of positions that `arrays.bits` made.

    Attributes:
        stored: Those whose outcomes are there; None for none.
        crafted: Those whose adversarial images are there, whichever cell they were made for; None for none.
    """

    stored: bytes | None = None
    crafted: bytes | None = None

    def missing(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some positions whose outcomes are not there."""
        return positions[~arrays.among(self.stored, positions)]

    def are_crafted(self, positions: NDArray[np.int64]) -> bool:
        """Whether the adversarial images of all these positions are there."""
        return bool(arrays.among(self.crafted, positions).all())


# Statements that a run repeats for every unit are built once: building one takes longer than running it.
_FIND = select(CELL).where(CELL.c.key.in_(bindparam("keys", expanding=True))).order_by(CELL.c.key)
_LOCK = _FIND.with_for_update()
_IMAGES = select(CRAFTING.c.key, CRAFTING.c.committed).where(CRAFTING.c.key.in_(bindparam("keys", expanding=True)))
_CHANGE = update(CELL).where(CELL.c.id == bindparam("number"))


def add(connection: Connection, cell: Cell, run: int) -> Cell:
    """Make a cell known that is not; forget the failure of one that is, which goes on as it was begun."""
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
        "record": seals.plain(cell.as_dict()),
    }
    query = insert_missing(connection, CELL).values(seals.sealed(CELL, values))
    if connection.execute(query).rowcount != 1:
        row = find(connection, cell)
        if row.status == "failed":
            change(connection, row, status=status(row, row.committed), error="")
        return replace(cell, early_stop=read(row).early_stop)
    return cell


def find(connection: Connection, cell: Cell) -> Row[Any]:
    """The row of a cell, locked where rows can be: its state is read, then written.

    Raises:
        StoreError: Nobody has added it, or it is damaged.
    """
    return find_all(connection, {cell.key})[cell.key]


def find_all(connection: Connection, keys: set[str]) -> dict[str, Row[Any]]:
    """The rows of some cells by key, locked likewise: in one order, so that no two wait for each other.

    Raises:
        StoreError: Nobody has added one, or it is damaged.
    """
    rows = {row.key: row for row in connection.execute(_LOCK, {"keys": sorted(keys)})}
    if missing := keys - rows.keys():
        raise StoreError(f"cell {min(missing)[:12]} is not in the store; add it with add_cell first")
    for row in rows.values():
        checked(row)
    return rows


def change(connection: Connection, row: Row[Any], **values: Any) -> None:
    """Write some columns of a cell anew."""
    change_all(connection, [(row, values)])


def change_all(connection: Connection, changes: Sequence[tuple[Row[Any], Mapping[str, Any]]]) -> None:
    """Write some columns of cells anew; a cell without a seal stays without."""
    new = []
    for row, values in changes:
        whole = {**row._mapping, **values}
        seal = None if row.seal is None else seals.seal(CELL, whole)
        rest = {name: whole[name] for name in ("committed", "status", "error")}
        new.append({"number": row.id, **rest, "seal": seal})
    if new:
        connection.execute(_CHANGE, new)


def progress(
    connection: Connection, cells: Iterable[Cell], known: Mapping[str, bytes | None] = MappingProxyType({})
) -> dict[str, Progress]:
    """How far some cells are, by key; one that is not there has come nowhere.

    Args:
        connection: Of a transaction.
        cells: The cells.
        known: What this transaction has written of it: what is there, by key of the cell or crafting.

    Raises:
        StoreError: One is damaged.
    """
    wanted = {cell.key: cell.craft_key for cell in cells}
    found = dict(known)
    if unknown := wanted.keys() - found.keys():
        rows = connection.execute(_FIND, {"keys": sorted(unknown)})
        found |= {row.key: checked(row).committed for row in rows}
    if unknown := set(wanted.values()) - found.keys():
        found |= {row.key: row.committed for row in connection.execute(_IMAGES, {"keys": sorted(unknown)})}
    return {key: Progress(found.get(key), found.get(craft)) for key, craft in wanted.items()}


def status(row: Row[Any], committed: bytes | None) -> str:
    """`done` or `partial`, by what is there."""
    return "done" if arrays.count(committed) == row.samples else "partial"


def checked(row: Row[Any]) -> Row[Any]:
    """The row itself, if it is what was stored.

    Raises:
        StoreError: It is not.
    """
    seals.check(CELL, row, name_of(row))
    return row


def read(row: Row[Any]) -> Cell:
    """The cell that a row is about.

    Raises:
        StoreError: It is not the one that was stored.
    """
    checked(row)
    try:
        cell = Cell.from_dict(row.record)
        # What was written long ago may lack a field that has a default by now.
        if cell.key == row.key or digest({k: v for k, v in row.record.items() if k not in DECLARED}) == row.key:
            return cell
    except _BROKEN:
        pass
    raise seals.damaged(name_of(row))


def record(row: Row[Any]) -> CellRecord:
    """A cell and how far it has come."""
    return CellRecord(read(row), row.status, row.error, arrays.count(row.committed), row.run_id, row.created)


def evidence(connection: Connection, wanted: Select[tuple[int]]) -> Iterator[Evidence]:
    """What is known of the cells whose numbers a query names, in the order they were added.

    Raises:
        StoreError: Something of them is damaged.
    """
    rows = connection.execute(select(CELL).where(CELL.c.id.in_(wanted)).order_by(CELL.c.id)).all()
    query = select(BATCH).where(BATCH.c.cell_id.in_(wanted)).order_by(BATCH.c.cell_id, BATCH.c.id)
    batches = {number: list(group) for number, group in groupby(connection.execute(query), lambda b: b.cell_id)}
    provenances = _provenances(connection, {row.run_id for row in rows})
    for row in rows:
        cell, made = read(row), batches.get(row.id, [])
        yield Evidence(
            cell,
            _outcome(row, cell, made),
            row.status,
            row.error,
            float(sum(batch.seconds for batch in made)),
            row.run_id,
            row.created,
            provenances[row.run_id],
        )


def _outcome(row: Row[Any], cell: Cell, batches: Sequence[Row[Any]]) -> Outcome:
    """What the batches hold; they are intact, and together are what the cell says is there."""
    for batch in batches:
        check_batch(row, cell, batch)
    count = sum(batch.samples for batch in batches)
    if count != arrays.count(row.committed):
        raise seals.damaged(name_of(row))
    packed = tuple(batch.outcome for batch in batches)
    return Packed.of(partial(outcomes.unpack, packed, cell.scoring_draws), count)


def check_batch(row: Row[Any], cell: Cell, batch: Row[Any]) -> None:
    """Refuse a batch that is not what was stored.

    Raises:
        StoreError: It is damaged.
    """
    seals.check(BATCH, batch, name_of(row), cell.key)
    if batch.seal is None:  # of schema 0001: at least it means something
        try:
            intact = len(outcomes.decode(batch.outcome, cell)) == batch.samples
        except ValueError:
            intact = False
        if not intact:
            raise seals.damaged(name_of(row))


def _provenances(connection: Connection, runs: set[int]) -> Mapping[int, Mapping[str, Any]]:
    found = {}
    for row in connection.execute(select(RUN).order_by(RUN.c.id)):
        if row.id in runs:
            seals.check(RUN, row, f"run {row.id}")
            found[row.id] = masked_record(row.provenance)  # one of long ago may hold a password
    if lost := runs - found.keys():
        raise seals.damaged(f"run {min(lost)}")
    return found


def name_of(row: Row[Any]) -> str:
    """A cell in a message, as far as its row can be read."""
    return f"cell {str(row.key)[:12]} ({row.defense}, {row.access}, {row.attack} on {row.dataset})"
