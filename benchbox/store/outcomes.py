"""Outcomes as they are kept: packed, a batch in a piece, and unpacked when somebody looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchbox.domain import Cell, Outcome
from benchbox.errors import StoreError
from benchbox.store import arrays

_WHOLE = ("position", "label", "first_success")
_REAL = ("linf", "l2", "forwards", "backwards")
_PREDICTIONS = ("clean", "adversarial")
#: In cells of some balls, and of defences that prove something, alone.
_SOMETIMES = ("distance", "certified")
_NAMES = tuple(field.name for field in fields(Outcome))

#: Outcomes that are kept unpacked. A report goes through thousands, a few at a time.
UNPACKED = 64


def check(cell: Cell, outcome: Outcome) -> None:
    """Refuse what would not come back as it was, or means nothing.

    Raises:
        StoreError: Rows or draws do not match the cell, a position is not on its list or occurs twice, or a
            number is not finite.
    """
    n = len(outcome.position)
    expected: dict[str, tuple[int, ...]] = dict.fromkeys((*_WHOLE, *_REAL), (n,))
    expected |= dict.fromkeys(_PREDICTIONS, (n, cell.scoring_draws))
    if cell.threat.norm not in _REAL:
        expected["distance"] = (n,)
    if outcome.certified is not None:
        expected["certified"] = (n,)
    for name, shape in expected.items():
        array = getattr(outcome, name)
        if array is None:
            raise StoreError(f"outcome has no {name}; the ball {cell.threat} needs it")
        if array.shape != shape:
            raise StoreError(f"outcome has {name} of shape {array.shape}; the cell needs {shape}")
        if (array.dtype == np.bool_) != (name == "certified"):
            raise StoreError(f"outcome has {name} of {array.dtype}; only certified is of bool")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StoreError(f"outcome has a {name} that is not finite; store finite numbers")
    if n == 0:
        return
    low, high = int(outcome.position.min()), int(outcome.position.max())
    if low < 0 or high >= len(cell.samples) or not np.diff(np.sort(outcome.position)).all():
        raise StoreError(
            f"outcome has positions {low} to {high} for {n} samples of a list of {len(cell.samples)}; "
            "give each position of the list at most once"
        )


def encode(outcome: Outcome) -> bytes:
    """An outcome, packed."""
    known = {name: getattr(outcome, name) for name in _NAMES}
    wide = {name: np.asarray(array, _kind(name)) for name, array in known.items() if array is not None}
    return arrays.pack(wide)


def decode(packed: bytes, cell: Cell) -> Outcome:
    """Inverse of `encode`, for an outcome that nothing vouches for.

    Raises:
        ValueError: It is none, or none of this cell.
    """
    try:
        outcome = Outcome(**arrays.unpack(packed))
        check(cell, outcome)
    except (TypeError, AttributeError, StoreError) as error:
        raise ValueError(str(error)) from error
    return outcome


def without(outcome: Outcome, positions: NDArray[np.int64]) -> Outcome:
    """The samples at other positions than these."""
    return moved(outcome, np.where(np.isin(outcome.position, positions), -1, outcome.position))


def moved(outcome: Outcome, positions: NDArray[np.int64]) -> Outcome:
    """The same samples at other positions, (N,); those at -1 are left out."""
    return outcome.rows(positions >= 0, position=positions[positions >= 0])


@lru_cache(maxsize=UNPACKED)
def unpack(batches: tuple[bytes, ...], draws: int) -> Mapping[str, NDArray[Any]]:
    """The arrays of all batches of a cell, sorted by position.

    Args:
        batches: What `encode` made of them; they are intact.
        draws: The cell's scoring draws.
    """
    found = [arrays.unpack(batch) for batch in batches]
    if len(found) == 1:
        joined = found[0]
    else:
        # What one batch lacks nobody knows of the cell: of a certificate that was not asked for, say.
        some = [name for name in _SOMETIMES if found and all(name in batch for batch in found)]
        names = [name for name in _NAMES if name not in _SOMETIMES or name in some]
        none = {name: np.zeros((0, draws) if name in _PREDICTIONS else 0, _kind(name)) for name in names}
        joined = {name: np.concatenate([none[name], *(batch[name] for batch in found)]) for name in names}
    position = joined["position"]
    if (position[1:] < position[:-1]).any():
        order = np.argsort(position)
        joined = {name: array[order] for name, array in joined.items()}
    for array in joined.values():
        array.flags.writeable = False  # whoever asks next gets the same one
    return joined


def _kind(name: str) -> type[np.generic]:
    if name == "certified":
        return np.bool_
    return np.float64 if name in (*_REAL, "distance") else np.int64
