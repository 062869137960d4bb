"""Adversarial images in the store: packed, a batch in a piece, so that any of them can be asked for again.

Beside them lie the clean images, once for each list: what an attack made is kept as what it did to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, select, update

from benchbox.errors import StoreError
from benchbox.store import arrays, images, seals
from benchbox.store.database import insert_missing
from benchbox.store.images import Adversarials, Packed
from benchbox.store.schema import CRAFTED, CRAFTING

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


def save(connection: Connection, made: Sequence[Adversarials]) -> dict[str, bytes | None]:
    """Add the images whose positions are not there yet; those that are stay as they are.

    Returns:
        The positions that are there now, by key of each crafting.
    """
    made = [*filter(None, map(_clean_of, made)), *made]
    rows = _craftings(connection, made)
    committed = {key: row.committed for key, row in rows.items()}
    added = []
    for crafted in made:
        key, row = crafted.craft_key, rows[crafted.craft_key]
        is_new = ~arrays.among(committed[key], crafted.position)
        if not is_new.any():
            continue
        new = crafted if is_new.all() else replace(crafted, clean=_clean_of(crafted)).rows(is_new)
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
    if not pieces:
        raise seals.damaged(_name(crafting))
    if len(pieces) == 1 and pieces[0].seal and np.array_equal(_where(pieces[0].position)[0], positions):
        return _as_it_is(connection, crafting, pieces[0], positions)
    found = [decode(connection, crafting, row).columns() for row in pieces]
    whole = {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}
    joined = Adversarials(craft_key, **whole, clean=None)
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


def decode(connection: Connection, crafting: Row[Any], row: Row[Any]) -> Adversarials:
    """The images of a piece.

    Raises:
        StoreError: The piece is not what was stored, or its clean images are not there.
    """
    seals.check(CRAFTED, row, _name(crafting), crafting.key)
    try:
        position, key = images.where(row.position)
        clean = None if key is None else load(connection, key, position)
        made = Adversarials(crafting.key, position, **images.unpack(row.images, clean), clean=clean)
        if made.x.shape == (row.samples, crafting.channels, crafting.height, crafting.width):
            return made
    except (TypeError, AttributeError, ValueError, KeyError, StoreError):
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


def _clean_of(crafted: Adversarials) -> Adversarials | None:
    """The clean images, if these were packed as what was done to them."""
    return None if _where(crafted.packed["position"])[1] is None else crafted.clean


def _as_it_is(connection: Connection, crafting: Row[Any], piece: Row[Any], positions: NDArray[np.int64]) -> Packed:
    """A piece that is just what is wanted, as whoever asks is going to send it somewhere."""
    seals.check(CRAFTED, piece, _name(crafting), crafting.key)
    packed, key = {"position": piece.position, "images": piece.images}, _where(piece.position)[1]
    clean = None if key is None else load(connection, key, positions)
    if key is not None and clean is None:
        raise seals.damaged(_name(crafting))
    return Packed.of(crafting.key, positions, packed, (crafting.channels, crafting.height, crafting.width), clean)


def _pieces(connection: Connection, crafting: Row[Any], positions: NDArray[np.int64]) -> Sequence[Row[Any]]:
    """The rows that hold these positions: their images alone are read."""
    numbers = []
    for row in connection.execute(_WHERE, {"number": crafting.id}):
        try:
            if np.isin(_where(row.position)[0], positions).any():
                numbers.append(row.id)
        except (ValueError, KeyError, TypeError):
            raise seals.damaged(_name(crafting)) from None
    return connection.execute(_READ, {"numbers": numbers}).all()


@lru_cache(maxsize=4096)
def _where(packed: bytes) -> tuple[NDArray[np.int64], str | None]:
    """See `images.where`: every unit that looks for its own goes through all pieces."""
    position, clean = images.where(packed)
    position.flags.writeable = False
    return position, clean


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
    key = str(crafting.key)
    kind = "clean" if key.startswith("clean/") else "adversarial"
    return f"{kind} images {key.removeprefix('clean/')[:12]}"
