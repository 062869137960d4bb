"""Adversarial images as what was done to the clean ones: a move a pixel, of which an attack has few.

Steps along the sign of a gradient end on the border of the ball or on a lattice, so most pixels went one of a few
ways. Which one is a code of a few bits. What rounding on the way added is a residue, nearly always 0, and a pixel
that went a way of its own, as a random start leaves it, is kept as it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Moves that differ by less are one, but for rounding.
_ROUNDING = 2.0**-19
#: So many pixels make a move worth its place in the table.
_PIXELS = 4
#: Codes are bytes, and one of them says that there is no move.
_MOVES = 254
#: The largest residue, in units in the last place.
_RESIDUE = 127
#: The share of pixels with a way of their own from which on the images themselves take no more.
_ALONE = 7 / 8

_Columns = Mapping[str, NDArray[Any]]


def encode(x: NDArray[np.float32], clean: NDArray[np.float32]) -> dict[str, NDArray[Any]] | None:
    """What turns clean images into others, as arrays that compress well.

    Args:
        x: The images, any shape and any bits.
        clean: As many clean ones.

    Returns:
        Arrays for `decode`; None where nearly every pixel went a way of its own.
    """
    order = _order(clean)
    start, end = clean.ravel()[order], x.ravel()[order]
    with np.errstate(all="ignore"):
        way = end - start
        moves = _moves(way[(end > 0) & (end < 1)])
        if len(moves) == 0:
            return None
        code = np.searchsorted((moves[1:] + moves[:-1]) / 2, way).astype(np.uint8)
        # Who was stopped by the range of pixels went as far as the border of the ball.
        code[_moved(start, moves[-1]) == end] = len(moves) - 1
        code[_moved(start, moves[0]) == end] = 0
        near = _moved(start, moves[code])
        residue = _bits(end).astype(np.int64) - _bits(near)
    alone = (np.abs(residue) > _RESIDUE) | ~np.isfinite(near)
    if alone.sum() > _ALONE * len(alone):
        return None
    # The most frequent first: codes are alike in all batches.
    rank = np.argsort(-np.bincount(code[~alone], minlength=len(moves)), kind="stable")
    code = np.argsort(rank).astype(np.uint8)[code]
    code[alone] = len(moves)
    by_code = np.argsort(code, kind="stable")[: len(code) - int(alone.sum())]
    residue = residue[by_code].astype(np.int8).view(np.uint8)
    columns = {
        "moves": moves[rank],
        "residues": residue if residue.any() else residue[:0],
        "alone": end[alone].view(np.uint32),
        "check": np.array([_check(x)], np.uint32),
    }
    if len(moves) <= 2 and not alone.any():
        return {**columns, "bits": np.packbits(code)}  # Huffman's code has no less than a bit, and one for the end
    return {**columns, "codes": code}


def decode(columns: _Columns, clean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of `encode`, to the bit.

    Raises:
        ValueError: These are other clean images, or other arrays.
    """
    order = _order(clean)
    start, moves = clean.ravel()[order], columns["moves"].astype(np.float32)
    code = columns["codes"] if "codes" in columns else np.unpackbits(columns["bits"], count=len(start))
    if len(code) != len(start):
        raise ValueError(f"{len(code)} codes for {len(start)} pixels")
    with np.errstate(all="ignore"):
        end = _bits(_moved(start, moves[np.minimum(code, len(moves) - 1)]))
    alone = code == len(moves)
    if len(columns["residues"]):
        end[np.argsort(code, kind="stable")[: len(code) - int(alone.sum())]] += columns["residues"].view(np.int8)
    end[alone] = columns["alone"].astype(np.uint32).view(np.int32)
    x = np.empty(len(end), np.int32)
    x[order] = end
    if _check(x) != int(columns["check"][0]):
        raise ValueError("they were made of other clean images")
    return x.view(np.float32).reshape(clean.shape)


def _moves(ways: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K,) ascending: those that many pixels went, and the farthest, which black and white ones tried to go."""
    found, count = np.unique(ways[np.isfinite(ways)], return_counts=True)
    if len(found) == 0:
        return found
    group = np.cumsum(np.diff(found, prepend=found[0]) > _ROUNDING)
    pixels = np.bincount(group, weights=count)
    usual = np.empty(len(pixels), np.float32)
    by_count = np.lexsort((count, group))
    usual[group[by_count]] = found[by_count]  # of each group the last, which is its most frequent
    pixels[[0, -1]] = len(ways)
    most = np.argsort(-pixels, kind="stable")[:_MOVES]
    return np.sort(usual[most[pixels[most] >= _PIXELS]])


def _moved(start: NDArray[np.float32], move: Any) -> NDArray[np.float32]:
    moved: NDArray[np.float32] = np.clip(start + move, np.float32(0), np.float32(1))
    return moved


def _order(clean: NDArray[np.float32]) -> NDArray[np.intp]:
    """Black pixels first: they go up or stay, and others have more ways."""
    return np.argsort(clean.ravel() > 0, kind="stable")


def _bits(x: NDArray[np.float32]) -> NDArray[np.int32]:
    return x.view(np.int32)


def _check(x: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(x).tobytes())
