"""Labels as people have them: one-hot, in a column, as floats or as names; what is converted is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchbox.errors import DataError

_LOG = logging.getLogger("benchbox")
#: Class names that are said; more of them end in an ellipsis.
_SHOWN = 10


def numbered(found: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[np.int64]]:
    """Class numbers (N,) of each split.

    Integers (N,) are taken as they are. One-hot (N, K), a column (N, 1), whole floats, truth values and texts are
    converted, and the logger `benchbox` says so. Texts are numbered in their order, over all splits together.

    Args:
        found: Labels by name of the array they come from, `y_test`.
        where: Their file, for the messages.

    Raises:
        DataError: They are none of these.
    """
    rows = {name: _rows(y, name, where) for name, y in found.items()}
    if any(y.dtype.kind in "US" for y in rows.values()):
        return _from_texts(rows, where)
    return {name: _whole(y, name, where) for name, y in rows.items()}


def _rows(y: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    """One value an image."""
    if y.ndim == 2 and y.shape[1] == 1:
        _LOG.warning("%s: %s has shape %s; its column is taken", where, name, y.shape)
        return y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "biuf":
        if len(y) and not (np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()):
            raise DataError(
                f"{where}: {name} is {y.dtype} {y.shape} and not one-hot; give one class number an image, for "
                f"probabilities {name}.argmax(1)"
            )
        _LOG.warning("%s: %s is one-hot; its argmax(1) is taken", where, name)
        return np.asarray(y.argmax(1))
    if y.ndim != 1 or y.dtype.kind not in "biufUS":
        raise DataError(
            f"{where}: {name} must be integers (N,), got {y.dtype} {y.shape}; give one class number an image"
        )
    return y


def _whole(y: NDArray[Any], name: str, where: str) -> NDArray[np.int64]:
    if y.dtype.kind in "fb":
        wrong = y[~(np.isfinite(y) & (y == np.round(y)))] if y.dtype.kind == "f" else y[:0]
        if len(wrong):
            raise DataError(f"{where}: {name} has the label {wrong[0]:g}; give whole class numbers, 0 to K-1")
        _LOG.warning("%s: %s is %s; its whole numbers are taken", where, name, y.dtype)
    return y.astype(np.int64)


def _from_texts(rows: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[np.int64]]:
    texts = {name: [str(v, "utf-8", "replace") if isinstance(v, bytes) else str(v) for v in y.tolist()]
             for name, y in rows.items()}  # fmt: skip
    every = sorted({text for column in texts.values() for text in column})
    if all(text.isdecimal() for text in every):
        _LOG.warning("%s: labels are texts; the numbers they spell are taken", where)
        return {name: np.array([int(text) for text in column], np.int64) for name, column in texts.items()}
    shown = ", ".join(f"{text!r} = {number}" for number, text in enumerate(every[:_SHOWN]))
    more = ", …" if len(every) > _SHOWN else ""
    _LOG.warning("%s: labels are texts; they are numbered in their order, %s%s", where, shown, more)
    number = {text: place for place, text in enumerate(every)}
    return {name: np.array([number[text] for text in column], np.int64) for name, column in texts.items()}
