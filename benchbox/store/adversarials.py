"""Adversarial images in the store: packed, a batch in a piece, so that any of them can be asked for again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, select, update

from benchbox.errors import StoreError
from benchbox.store import arrays, seals
from benchbox.store.database import insert_missing
from benchbox.store.schema import CRAFTED, CRAFTING


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
        distance: (N,) float64, see `Outcome.distance`; None likewise.

    Raises:
        StoreError: The rows do not match, or the images are not float32, which is what they come back as.
    """

    craft_key: str
    position: NDArray[np.int64]
    x: NDArray[np.float32]
    first_success: NDArray[np.int64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]
    distance: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.x.dtype != np.float32 or self.x.ndim != 4:
            raise StoreError(f"adversarial images are {self.x.dtype} {self.x.shape}; give float32 (N, C, H, W)")
        rows = (len(self.x),)
        for name in ("position", "first_success", "forwards", "backwards", "distance"):
            column = getattr(self, name)
            if column is not None and column.shape != rows:
                raise StoreError(
                    f"{name} has shape {column.shape} for {rows[0]} adversarial images; give one an image"
                )

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def packed(self) -> dict[str, bytes]:
        """As they are kept. Packing takes several times what storing does: whoever made them does it."""
        return encode(self)

    def rows(self, chosen: NDArray[Any], craft_key: str | None = None) -> Adversarials:
        """Some of the rows: a mask, or numbers."""
        return Adversarials(craft_key or self.craft_key, **{k: v[chosen] for k, v in self.columns().items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays there are, by name."""
        known = {name: getattr(self, name) for name in _ARRAYS}
        return {name: array for name, array in known.items() if array is not None}


_ARRAYS = tuple(field.name for field in fields(Adversarials) if field.name != "craft_key")


def save(connection: Connection, crafted: Adversarials) -> None:
    """Add the images whose positions are not there yet; those that are stay as they are."""
    row = _crafting(connection, crafted)
    is_new = ~np.isin(crafted.position, arrays.positions(row.committed))
    if not is_new.any():
        return
    new = crafted if is_new.all() else crafted.rows(is_new)
    values = {"crafting_id": row.id, "samples": len(new), **new.packed}
    connection.execute(CRAFTED.insert().values(seals.sealed(CRAFTED, values, row.key)))
    change(connection, row, arrays.bits(new.position, row.committed))


def load(connection: Connection, craft_key: str, positions: NDArray[np.int64]) -> Adversarials | None:
    """The images at exactly these positions, in their order; None if one is missing.

    Raises:
        StoreError: An image is not what was stored.
    """
    crafting = connection.execute(select(CRAFTING).where(CRAFTING.c.key == craft_key)).one_or_none()
    if crafting is None:
        return None
    check(crafting)
    if not np.isin(positions, arrays.positions(crafting.committed)).all():
        return None
    found = [decode(crafting, row) for row in _pieces(connection, crafting, positions)]
    pieces = [piece.columns() for piece in found]
    joined = Adversarials(craft_key, **{k: np.concatenate([piece[k] for piece in pieces]) for k in pieces[0]})
    order = np.argsort(joined.position)
    places = np.minimum(np.searchsorted(joined.position, positions, sorter=order), len(joined) - 1)
    if not np.array_equal(joined.position[order[places]], positions):
        raise seals.damaged(_name(crafting))
    return joined.rows(order[places])


def check(crafting: Row[Any]) -> None:
    """Refuse the row of a crafting that is not what was stored.

    Raises:
        StoreError: It is damaged.
    """
    seals.check(CRAFTING, crafting, _name(crafting))


def encode(crafted: Adversarials) -> dict[str, bytes]:
    """The two packed columns of a piece: positions, to find it by, and all the rest."""
    rest = {name: array for name, array in crafted.columns().items() if name != "position"}
    return {"position": arrays.pack({"position": crafted.position}), "images": arrays.pack(rest)}


def decode(crafting: Row[Any], row: Row[Any]) -> Adversarials:
    """Inverse of `encode`.

    Raises:
        StoreError: The piece is not what was stored.
    """
    seals.check(CRAFTED, row, _name(crafting), crafting.key)
    try:
        made = Adversarials(crafting.key, **(arrays.unpack(row.position) | arrays.unpack(row.images)))
        if made.x.shape == (row.samples, crafting.channels, crafting.height, crafting.width):
            return made
    except (TypeError, AttributeError, ValueError, StoreError):
        pass
    raise seals.damaged(_name(crafting))


def change(connection: Connection, crafting: Row[Any], committed: bytes) -> None:
    """Write anew which images are there; a crafting without a seal stays without."""
    new = {**crafting._mapping, "committed": committed}
    seal = None if crafting.seal is None else seals.seal(CRAFTING, new)
    query = update(CRAFTING).where(CRAFTING.c.id == crafting.id)
    connection.execute(query.values(committed=committed, seal=seal))


def _pieces(connection: Connection, crafting: Row[Any], positions: NDArray[np.int64]) -> Iterable[Row[Any]]:
    """The rows that hold these positions: their images alone are read."""
    mine = CRAFTED.c.crafting_id == crafting.id
    query = select(CRAFTED.c.id, CRAFTED.c.position).where(mine).order_by(CRAFTED.c.id)
    numbers = []
    for row in connection.execute(query):
        try:
            if np.isin(arrays.unpack(row.position)["position"], positions).any():
                numbers.append(row.id)
        except (ValueError, KeyError, TypeError):
            raise seals.damaged(_name(crafting)) from None
    return connection.execute(select(CRAFTED).where(CRAFTED.c.id.in_(numbers)).order_by(CRAFTED.c.id)).all()


def _crafting(connection: Connection, crafted: Adversarials) -> Row[Any]:
    """The row that images of this key belong to, locked where rows can be; made if it is not there."""
    shape = dict(zip(("channels", "height", "width"), crafted.x.shape[1:], strict=True))
    values = seals.sealed(CRAFTING, {"key": crafted.craft_key, **shape})
    connection.execute(insert_missing(connection, CRAFTING).values(values))
    row = connection.execute(select(CRAFTING).where(CRAFTING.c.key == crafted.craft_key).with_for_update()).one()
    check(row)
    if (row.channels, row.height, row.width) != crafted.x.shape[1:]:
        raise StoreError(
            f"adversarial images of {crafted.craft_key[:12]} have shape "
            f"{(row.channels, row.height, row.width)} in the store, got {crafted.x.shape[1:]}; give all one shape"
        )
    return row


def _name(crafting: Row[Any]) -> str:
    return f"adversarial images {str(crafting.key)[:12]}"
