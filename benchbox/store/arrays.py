"""Arrays as few bytes: every number comes back to the bit, and many rows lie in one value of the database."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What zlib may spend. Higher levels cost several times the time for a few per cent.
LEVEL = 6
#: Bytes from which on a plane gets a code of its own: that costs some fifty.
PLANE = 4096


def pack(columns: Mapping[str, NDArray[Any]], strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Named arrays, as bytes.

    Each array is stored in the narrowest type that holds its values exactly, the first bytes of all its numbers
    before the second bytes: what is alike lies together, and zlib finds it.

    Args:
        columns: The arrays.
        strategy: Of zlib; `Z_RLE` takes a fifth of the time where nothing repeats but runs.
    """
    header: list[list[Any]] = []
    bodies: list[bytes] = []
    for name, array in columns.items():
        narrow = _narrow(array)
        entry = [name, narrow.dtype.str, array.dtype.str, array.shape]
        if narrow.dtype == np.float32 and (coded := _coded(narrow)) is not None:
            codes, table = coded
            header.append([*entry, codes.dtype.str, len(table)])
            bodies += [*_planes(table), *_planes(codes)]
        else:
            header.append(entry)
            bodies += _planes(narrow)
    return _compressed([json.dumps(header).encode() + b"\n", *bodies], strategy)


def unpack(packed: bytes, names: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays that `pack` was given, types and shapes included.

    Args:
        packed: What it gave.
        names: Of the arrays that are asked for; None for all.

    Raises:
        ValueError: These bytes are not its.
    """
    try:
        raw = zlib.decompress(packed)
        start = raw.index(b"\n") + 1
        columns: dict[str, NDArray[Any]] = {}
        for name, narrow, wide, shape, *coded in json.loads(raw[: start - 1]):
            kind, steps = coded or (narrow, 0)
            numbers, count = start + 4 * steps, math.prod(shape)
            if names is None or name in names:
                kept = _take(raw, numbers, kind, count)
                if coded:
                    table = _take(raw, start, "<u4", steps).cumsum(dtype=np.uint32).view(np.float32)
                    kept = table.take(kept)
                columns[name] = kept.reshape(shape).astype(wide)
            start = numbers + np.dtype(kind).itemsize * count
    except (zlib.error, TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"not packed arrays ({error})") from error
    return columns


def _take(raw: bytes, start: int, kind: str, count: int) -> NDArray[Any]:
    """Numbers from a place on."""
    size = np.dtype(kind).itemsize
    if size == 1:
        return np.frombuffer(raw, kind, count, start)
    planes = np.frombuffer(raw, np.uint8, count * size, start).reshape(size, -1)
    return planes.T.copy().view(kind).ravel()


def _coded(array: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.uint32]] | None:
    """Numbers as places in a table of those that occur, where they are few; the table as the steps between them.

    An attack leaves most pixels on the border of its ball: a batch of images has a few hundred different values.
    """
    table, codes = np.unique(array.view(np.uint32), return_inverse=True)
    if len(table) > min(array.size // 4, 65_536):
        return None
    kind = np.uint8 if len(table) <= 256 else np.uint16
    return codes.astype(np.dtype(kind).newbyteorder("<")), np.diff(table, prepend=np.uint32(0)).astype("<u4")


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    kind = array.dtype
    if array.size and kind.kind in "iu":
        kind = np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))
    elif kind == np.float64:
        with np.errstate(over="ignore"):
            kind = np.dtype(np.float32) if np.array_equal(array.astype(np.float32), array) else kind
    return array.astype(kind.newbyteorder("<"))


def _planes(array: NDArray[Any]) -> list[bytes]:
    planes = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8).T
    return [plane.tobytes() for plane in planes]


def _compressed(bodies: Iterable[bytes], strategy: int) -> bytes:
    to = zlib.compressobj(LEVEL, strategy=strategy)
    parts = []
    for body in bodies:
        parts.append(to.compress(body))
        if len(body) >= PLANE:
            parts.append(to.flush(zlib.Z_FULL_FLUSH))
    return b"".join([*parts, to.flush()])


def bits(positions: NDArray[np.int64], known: bytes | None = None) -> bytes:
    """A set of positions, one bit each, added to those that are known."""
    kept = np.unpackbits(np.frombuffer(known or b"", np.uint8))
    flags = np.zeros(max(len(kept), int(positions.max(initial=-1)) + 1), np.uint8)
    flags[: len(kept)] = kept
    flags[positions] = 1
    return np.packbits(flags).tobytes()


def among(kept: bytes | None, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether each position is in a set that `bits` made."""
    flags = np.unpackbits(np.frombuffer(kept or b"", np.uint8)).view(np.bool_)
    inside = positions < len(flags)
    if inside.all():
        return flags[positions]
    found = np.zeros(len(positions), np.bool_)
    found[inside] = flags[positions[inside]]
    return found


def count(kept: bytes | None) -> int:
    """How many positions are in a set that `bits` made."""
    return int.from_bytes(kept or b"").bit_count()


def positions(kept: bytes | None) -> NDArray[np.int64]:
    """The set that `bits` made, ascending."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(kept or b"", np.uint8))).astype(np.int64)
