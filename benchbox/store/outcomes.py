"""Outcomes as rows: one a sample, readable with any database tool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, insert, select

from benchbox.domain import Cell, Outcome
from benchbox.errors import StoreError
from benchbox.store.schema import OUTCOME

_SCALARS = ("label", "first_success", "linf", "l2", "forwards", "backwards")
_PREDICTIONS = ("clean", "adversarial")
_COLUMNS = tuple(column.name for column in OUTCOME.columns)


def check(cell: Cell, outcome: Outcome) -> None:
    """Refuse what would not come back as it was.

    Raises:
        StoreError: Rows or draws do not match the cell, a position is not on its list or occurs twice, or a
            number is not finite.
    """
    n = len(outcome)
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("position", *_SCALARS), (n,))
    expected |= dict.fromkeys(_PREDICTIONS, (n, cell.scoring_draws))
    for name, shape in expected.items():
        array = getattr(outcome, name)
        if array.shape != shape:
            raise StoreError(f"outcome has {name} of shape {array.shape}; the cell needs {shape}")
        if not np.isfinite(array).all():
            raise StoreError(f"outcome has a {name} that is not finite; store finite numbers")
    if n == 0:
        return
    low, high = int(outcome.position.min()), int(outcome.position.max())
    if low < 0 or high >= len(cell.samples) or len(np.unique(outcome.position)) < n:
        raise StoreError(
            f"outcome has positions {low} to {high} for {n} samples of a list of {len(cell.samples)}; "
            "give each position of the list at most once"
        )


def save(connection: Connection, cell_id: int, outcome: Outcome) -> None:
    """Insert the rows; a position that is there already violates the primary key."""
    columns = {name: getattr(outcome, name).tolist() for name in ("position", *_SCALARS)}
    for name in _PREDICTIONS:
        columns[name] = [json.dumps(row, separators=(",", ":")) for row in getattr(outcome, name).tolist()]
    rows = [
        {"cell_id": cell_id, **dict(zip(columns, values, strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]
    if rows:
        connection.execute(insert(OUTCOME), rows)


def load(connection: Connection, cells: Select[tuple[int]]) -> Iterator[tuple[int, Outcome]]:
    """The outcomes of the cells whose numbers a query names, by number; none for a cell without rows."""
    query = select(OUTCOME).where(OUTCOME.c.cell_id.in_(cells))
    rows = connection.execute(query.order_by(OUTCOME.c.cell_id, OUTCOME.c.position)).all()
    if not rows:
        return
    # One pass turns all rows into columns; cutting those per cell is much faster than building cell by cell.
    columns = _transposed(rows)
    cell_ids = columns["cell_id"]
    starts = np.flatnonzero(np.diff(cell_ids, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        part = {name: column[start:end] for name, column in columns.items() if name != "cell_id"}
        part |= {name: _predictions(part[name]) for name in _PREDICTIONS}
        yield int(cell_ids[start]), Outcome(**part)


def empty(cell: Cell) -> Outcome:
    """The outcome of a cell none of whose samples has been scored."""
    whole, real = np.zeros(0, np.int64), np.zeros(0, np.float64)
    predictions = np.zeros((0, cell.scoring_draws), np.int64)
    return Outcome(whole, whole, predictions, predictions, whole, real, real, real, real)


def _transposed(rows: Sequence[Row[Any]]) -> dict[str, Any]:
    columns: dict[str, Any] = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    for name in ("cell_id", "position", "label", "first_success"):
        columns[name] = np.array(columns[name], np.int64)
    for name in ("linf", "l2", "forwards", "backwards"):
        columns[name] = np.array(columns[name], np.float64)
    return columns


def _predictions(texts: Sequence[str]) -> NDArray[np.int64]:
    return np.array(json.loads(f"[{','.join(texts)}]"), np.int64)
