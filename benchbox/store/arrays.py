"""Arrays as few bytes: every number comes back to the bit, and many rows lie in one value of the database."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What zlib may spend. Higher levels cost several times the time for a few per cent.
LEVEL = 6


def pack(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays, as bytes.

    Each array is stored in the narrowest type that holds its values exactly, the first bytes of all its numbers
    before the second bytes: what is alike lies together, and zlib finds it.
    """
    header, bodies = [], []
    for name, array in columns.items():
        narrow = _narrow(array)
        header.append([name, narrow.dtype.str, array.dtype.str, array.shape])
        bodies.append(_bytes_of(narrow))
    return zlib.compress(json.dumps(header).encode() + b"\n" + b"".join(bodies), LEVEL)


def unpack(packed: bytes) -> dict[str, NDArray[Any]]:
    """The arrays that `pack` was given, types and shapes included.

    Raises:
        ValueError: These bytes are not its.
    """
    try:
        raw = zlib.decompress(packed)
        start = raw.index(b"\n") + 1
        columns: dict[str, NDArray[Any]] = {}
        for name, narrow, wide, shape in json.loads(raw[: start - 1]):
            size = np.dtype(narrow).itemsize
            end = start + math.prod(shape) * size
            if size == 1:
                kept = np.frombuffer(raw, narrow, end - start, start)
            else:
                planes = np.frombuffer(raw, np.uint8, end - start, start).reshape(size, -1)
                kept = planes.T.copy().view(narrow)
            columns[name] = kept.reshape(shape).astype(wide)
            start = end
    except (zlib.error, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"not packed arrays ({error})") from error
    return columns


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    kind = array.dtype
    if array.size and kind.kind in "iu":
        kind = np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))
    elif kind == np.float64:
        with np.errstate(over="ignore"):
            kind = np.dtype(np.float32) if np.array_equal(array.astype(np.float32), array) else kind
    return array.astype(kind.newbyteorder("<"))


def _bytes_of(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8).T.tobytes()


def bits(positions: NDArray[np.int64], known: bytes | None = None) -> bytes:
    """A set of positions, one bit each, added to those that are known."""
    kept = np.unpackbits(np.frombuffer(known or b"", np.uint8))
    flags = np.zeros(max(len(kept), int(positions.max(initial=-1)) + 1), np.uint8)
    flags[: len(kept)] = kept
    flags[positions] = 1
    return np.packbits(flags).tobytes()


def positions(kept: bytes | None) -> NDArray[np.int64]:
    """The set that `bits` made, ascending."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(kept or b"", np.uint8))).astype(np.int64)
