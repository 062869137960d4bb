"""Adversarial images in the store: one row an image, so that any batch can be asked for again."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, insert, select

from benchbox.errors import StoreError
from benchbox.store.schema import ADVERSARIAL, CRAFTING

#: Positions asked for in one statement; databases limit the number of parameters.
CHUNK = 500

#: Adversarial images hardly compress; a higher level costs time and gains nothing.
LEVEL = 1


@dataclass(frozen=True)
class Adversarials:
    """What an attack made of some samples; row i is one sample.

    Attributes:
        craft_key: `Cell.craft_key`, which every cell that uses these images shares.
        position: (N,) int64, place in the sample list.
        x: (N, C, H, W) float32, the images.
        first_success: (N,) int64, see `Outcome.first_success`.
        forwards: (N,) float64, forward passes spent on the sample.
        backwards: (N,) float64, backward passes likewise.

    Raises:
        StoreError: The rows do not match, or the images are not float32, which is what they come back as.
    """

    craft_key: str
    position: NDArray[np.int64]
    x: NDArray[np.float32]
    first_success: NDArray[np.int64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.x.dtype != np.float32 or self.x.ndim != 4:
            raise StoreError(f"adversarial images are {self.x.dtype} {self.x.shape}; give float32 (N, C, H, W)")
        rows = (len(self.x),)
        for name in ("position", "first_success", "forwards", "backwards"):
            if (shape := getattr(self, name).shape) != rows:
                raise StoreError(f"{name} has shape {shape} for {rows[0]} adversarial images; give one an image")

    def __len__(self) -> int:
        return len(self.position)


def save(connection: Connection, crafted: Adversarials) -> None:
    """Add the images whose positions are not there yet; those that are stay as they are."""
    crafting = _crafting(connection, crafted)
    query = select(ADVERSARIAL.c.position).where(ADVERSARIAL.c.crafting_id == crafting)
    known = set(connection.scalars(query))
    rows = [
        {
            "crafting_id": crafting,
            "position": position,
            "first_success": int(crafted.first_success[i]),
            "forwards": float(crafted.forwards[i]),
            "backwards": float(crafted.backwards[i]),
            **_encode(crafted.x[i]),
        }
        for i, position in enumerate(crafted.position.tolist())
        if position not in known
    ]
    if rows:
        connection.execute(insert(ADVERSARIAL), rows)


def load(connection: Connection, craft_key: str, positions: NDArray[np.int64]) -> Adversarials | None:
    """The images at exactly these positions, in their order; None if one is missing.

    Raises:
        StoreError: An image is not what was stored.
    """
    crafting = connection.execute(select(CRAFTING).where(CRAFTING.c.key == craft_key)).one_or_none()
    if crafting is None:
        return None
    found: dict[int, Row[Any]] = {}
    for chunk in _chunks(positions):
        query = select(ADVERSARIAL).where(
            ADVERSARIAL.c.crafting_id == crafting.id, ADVERSARIAL.c.position.in_(chunk)
        )
        found |= {row.position: row for row in connection.execute(query)}
        if not all(position in found for position in chunk):
            return None
    rows = [found[position] for position in positions.tolist()]
    x = np.empty((len(rows), crafting.channels, crafting.height, crafting.width), np.float32)
    for image, row in zip(x, rows, strict=True):
        image[...] = _decode(row, craft_key, image.shape)
    return Adversarials(
        craft_key,
        np.array(positions, np.int64),
        x,
        np.array([row.first_success for row in rows], np.int64),
        np.array([row.forwards for row in rows], np.float64),
        np.array([row.backwards for row in rows], np.float64),
    )


def _crafting(connection: Connection, crafted: Adversarials) -> int:
    shape = crafted.x.shape[1:]
    row = connection.execute(select(CRAFTING).where(CRAFTING.c.key == crafted.craft_key)).one_or_none()
    if row is not None:
        if (row.channels, row.height, row.width) != shape:
            raise StoreError(
                f"adversarial images of {crafted.craft_key[:12]} have shape "
                f"{(row.channels, row.height, row.width)} in the store, got {shape}; give all one shape"
            )
        return int(row.id)
    channels, height, width = shape
    values = {"key": crafted.craft_key, "channels": channels, "height": height, "width": width}
    key = connection.execute(insert(CRAFTING).values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _chunks(positions: NDArray[np.int64]) -> Iterator[list[int]]:
    for start in range(0, len(positions), CHUNK):
        yield positions[start : start + CHUNK].tolist()


def _encode(image: NDArray[np.float32]) -> dict[str, Any]:
    raw = image.astype("<f4").tobytes()
    return {"sha256": hashlib.sha256(raw).hexdigest(), "x": zlib.compress(raw, LEVEL)}


def _decode(row: Row[Any], craft_key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        raw = zlib.decompress(row.x)
    except zlib.error:
        raw = b""
    if hashlib.sha256(raw).hexdigest() != row.sha256:
        raise StoreError(
            f"adversarial image {row.position} of {craft_key[:12]} is damaged in the store (its SHA-256 "
            f"differs); put back a copy or DELETE FROM adversarial WHERE crafting_id = {row.crafting_id} AND "
            f"position = {row.position} and run the same command again"
        )
    return np.frombuffer(raw, "<f4").reshape(shape)
