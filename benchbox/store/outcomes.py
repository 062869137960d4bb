"""Outcomes as rows: one a sample, readable with any database tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select

from benchbox.domain import Cell, Outcome
from benchbox.errors import StoreError
from benchbox.store.schema import OUTCOME

_WHOLE = ("position", "label", "first_success")
_REAL = ("linf", "l2", "forwards", "backwards")
_PREDICTIONS = ("clean", "adversarial")
_NAMES = (*_WHOLE, *_REAL, *_PREDICTIONS)
_COLUMNS = tuple(OUTCOME.c[name] for name in _NAMES)


def check(cell: Cell, outcome: Outcome) -> None:
    """Refuse what would not come back as it was.

    Raises:
        StoreError: Rows or draws do not match the cell, a position is not on its list or occurs twice, or a
            number is not finite.
    """
    n = len(outcome)
    expected: dict[str, tuple[int, ...]] = dict.fromkeys((*_WHOLE, *_REAL), (n,))
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
    columns = {name: getattr(outcome, name).tolist() for name in (*_WHOLE, *_REAL)}
    for name in _PREDICTIONS:
        columns[name] = [json.dumps(row, separators=(",", ":")) for row in getattr(outcome, name).tolist()]
    rows = [
        {"cell_id": cell_id, **dict(zip(columns, values, strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]
    if rows:
        connection.execute(insert(OUTCOME), rows)


def load(connection: Connection, cell_id: int, cell: Cell) -> Outcome:
    """What is committed of a cell, sorted by position."""
    query = select(*_COLUMNS).where(OUTCOME.c.cell_id == cell_id).order_by(OUTCOME.c.position)
    rows = connection.execute(query).all()
    values = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    columns: dict[str, Any] = dict(zip(_NAMES, values, strict=True))
    columns |= {name: np.array(columns[name], np.int64) for name in _WHOLE}
    columns |= {name: np.array(columns[name], np.float64) for name in _REAL}
    columns |= {name: _predictions(columns[name], cell.scoring_draws) for name in _PREDICTIONS}
    return Outcome(**columns)


def _predictions(texts: Sequence[str], draws: int) -> NDArray[np.int64]:
    # Rows of integers need no JSON parser, and without one a large store is read in half the time.
    numbers = ",".join(texts).replace("[", "").replace("]", "")
    return np.fromstring(numbers, np.int64, sep=",").reshape(len(texts), draws)
