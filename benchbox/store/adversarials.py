"""Adversarial images in the store: packed, a batch in a piece, so that any of them can be asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, select, update

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (C, H, W)."""
        return self.x.shape[1:]

    @cached_property
    def packed(self) -> dict[str, bytes]:
        """As they are kept. Packing takes several times what storing does: whoever made them does it."""
        return encode(self)

    def as_packed(self) -> Packed:
        """The same as it is sent and kept: packed, and nothing else."""
        return Packed.of(self.craft_key, self.position, self.packed, self.shape)

    def rows(self, chosen: NDArray[Any], craft_key: str | None = None) -> Adversarials:
        """Some of the rows: a mask, or numbers."""
        return Adversarials(craft_key or self.craft_key, **{k: v[chosen] for k, v in self.columns().items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays there are, by name."""
        known = {name: getattr(self, name) for name in _ARRAYS}
        return {name: array for name, array in known.items() if array is not None}


class Packed(Adversarials):
    """Packed images that are unpacked when somebody looks: whoever hands them on need not."""

    _shape: tuple[int, ...]

    @classmethod
    def of(
        cls, craft_key: str, position: NDArray[np.int64], packed: dict[str, bytes], shape: tuple[int, ...]
    ) -> Packed:
        """What `Adversarials.packed` gave; it is intact.

        Args:
            craft_key: As it was.
            position: As it was.
            packed: The columns.
            shape: Of one image: (C, H, W).
        """
        self = cls.__new__(cls)
        vars(self).update(craft_key=craft_key, position=position, packed=packed, _shape=shape)
        return self

    def __post_init__(self) -> None:  # made anew from its arrays, as `dataclasses.replace` does
        super().__post_init__()
        vars(self)["_shape"] = self.x.shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (C, H, W)."""
        return self._shape

    def __getattribute__(self, name: str) -> Any:
        if name in _INSIDE and name not in (known := vars(self)) and "packed" in known:
            known.update(dict.fromkeys(_INSIDE) | arrays.unpack(known["packed"]["images"]))
        return super().__getattribute__(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed.of, (self.craft_key, self.position, self.packed, self._shape)


# Built once: building a statement takes longer than running it.
_FIND = (
    select(CRAFTING)
    .where(CRAFTING.c.key.in_(bindparam("keys", expanding=True)))
    .order_by(CRAFTING.c.key)
    .with_for_update()
)
_CHANGE = update(CRAFTING).where(CRAFTING.c.id == bindparam("number"))
_INSERT = CRAFTED.insert()
_WHERE = (
    select(CRAFTED.c.id, CRAFTED.c.position)
    .where(CRAFTED.c.crafting_id == bindparam("number"))
    .order_by(CRAFTED.c.id)
)
_READ = select(CRAFTED).where(CRAFTED.c.id.in_(bindparam("numbers", expanding=True))).order_by(CRAFTED.c.id)
_ARRAYS = tuple(field.name for field in fields(Adversarials) if field.name != "craft_key")
_INSIDE = frozenset(_ARRAYS) - {"position"}


def save(connection: Connection, made: Sequence[Adversarials]) -> dict[str, bytes | None]:
    """Add the images whose positions are not there yet; those that are stay as they are.

    Returns:
        The positions that are there now, by key of each crafting.
    """
    rows = _craftings(connection, made)
    committed = {key: row.committed for key, row in rows.items()}
    added = []
    for crafted in made:
        key, row = crafted.craft_key, rows[crafted.craft_key]
        is_new = ~arrays.among(committed[key], crafted.position)
        if not is_new.any():
            continue
        new = crafted if is_new.all() else crafted.rows(is_new)
        values = {"crafting_id": row.id, "samples": len(new), **new.packed}
        added.append(seals.sealed(CRAFTED, values, key))
        committed[key] = arrays.bits(new.position, committed[key])
    if added:
        connection.execute(_INSERT, added)
    change(connection, [(row, committed[key]) for key, row in rows.items() if committed[key] != row.committed])
    return committed


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
    pieces = _pieces(connection, crafting, positions)
    if len(pieces) == 1 and pieces[0].seal and np.array_equal(_positions(pieces[0].position), positions):
        return _as_it_is(crafting, pieces[0], positions)
    found = [decode(crafting, row).columns() for row in pieces]
    joined = Adversarials(craft_key, **{k: np.concatenate([piece[k] for piece in found]) for k in found[0]})
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


def change(connection: Connection, changes: Sequence[tuple[Row[Any], bytes]]) -> None:
    """Write anew which images of craftings are there; a crafting without a seal stays without."""
    new = []
    for crafting, committed in changes:
        whole = {**crafting._mapping, "committed": committed}
        seal = None if crafting.seal is None else seals.seal(CRAFTING, whole)
        new.append({"number": crafting.id, "committed": committed, "seal": seal})
    if new:
        connection.execute(_CHANGE, new)


def _as_it_is(crafting: Row[Any], piece: Row[Any], positions: NDArray[np.int64]) -> Packed:
    """A piece that is just what is wanted, as whoever asks is going to send it somewhere."""
    seals.check(CRAFTED, piece, _name(crafting), crafting.key)
    packed = {"position": piece.position, "images": piece.images}
    return Packed.of(crafting.key, positions, packed, (crafting.channels, crafting.height, crafting.width))


def _pieces(connection: Connection, crafting: Row[Any], positions: NDArray[np.int64]) -> Sequence[Row[Any]]:
    """The rows that hold these positions: their images alone are read."""
    numbers = []
    for row in connection.execute(_WHERE, {"number": crafting.id}):
        try:
            if np.isin(_positions(row.position), positions).any():
                numbers.append(row.id)
        except (ValueError, KeyError, TypeError):
            raise seals.damaged(_name(crafting)) from None
    return connection.execute(_READ, {"numbers": numbers}).all()


@lru_cache(maxsize=4096)
def _positions(packed: bytes) -> NDArray[np.int64]:
    """Of the images of a piece: every unit that looks for its own goes through all of them."""
    found = arrays.unpack(packed)["position"]
    found.flags.writeable = False
    return found


def _craftings(connection: Connection, made: Sequence[Adversarials]) -> dict[str, Row[Any]]:
    """The rows that images belong to, by key, locked where rows can be; made if they are not there."""
    shapes: dict[str, tuple[int, ...]] = {}
    for crafted in made:
        if shapes.setdefault(crafted.craft_key, crafted.shape) != crafted.shape:
            raise _misshapen(crafted.craft_key, shapes[crafted.craft_key], crafted.shape)
    if not shapes:
        return {}
    keys = sorted(shapes)
    sizes = {key: dict(zip(("channels", "height", "width"), shapes[key], strict=True)) for key in keys}
    rows = {row.key: row for row in connection.execute(_FIND, {"keys": keys})}
    if missing := [seals.sealed(CRAFTING, {"key": key, **sizes[key]}) for key in keys if key not in rows]:
        connection.execute(insert_missing(connection, CRAFTING), missing)
        rows = {row.key: row for row in connection.execute(_FIND, {"keys": keys})}
    for key, row in rows.items():
        check(row)
        if (row.channels, row.height, row.width) != shapes[key]:
            raise _misshapen(key, (row.channels, row.height, row.width), shapes[key])
    return rows


def _misshapen(key: str, stored: tuple[int, ...], got: tuple[int, ...]) -> StoreError:
    return StoreError(
        f"adversarial images of {key[:12]} have shape {stored} in the store, got {got}; give all one shape"
    )


def _name(crafting: Row[Any]) -> str:
    return f"adversarial images {str(crafting.key)[:12]}"
