"""Leases, seals, and outcomes and images packed a batch in a piece; what is there is packed, and has no seal."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op
from numpy.typing import NDArray

from benchbox.store import arrays

revision = "0002"
down_revision = "0001"

_SEALED = ("run", "cell", "batch", "crafting", "artifact", "setting", "attachment")
_WHOLE = ("position", "label", "first_success")
_REAL = ("linf", "l2", "forwards", "backwards")
#: Images packed together.
_PIECE = 64


def upgrade() -> None:
    for table in _SEALED:
        op.add_column(table, sa.Column("seal", sa.String(64)))
    op.add_column("cell", sa.Column("committed", sa.LargeBinary))
    op.add_column("crafting", sa.Column("committed", sa.LargeBinary))
    op.add_column("batch", sa.Column("outcome", sa.LargeBinary))
    op.create_table(
        "crafted",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("crafting_id", sa.Integer, sa.ForeignKey("crafting.id"), nullable=False, index=True),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("position", sa.LargeBinary, nullable=False),
        sa.Column("images", sa.LargeBinary, nullable=False),
        sa.Column("seal", sa.String(64)),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("place", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    connection = op.get_bind()
    for number in connection.scalars(sa.text("SELECT id FROM cell ORDER BY id")).all():
        _pack_outcomes(connection, number)
    for number in connection.scalars(sa.text("SELECT id FROM crafting ORDER BY id")).all():
        _pack_images(connection, number)
    for setting in connection.execute(sa.select(_SETTING)).all():
        query = sa.update(_SETTING).where(_SETTING.c.key == setting.key)
        connection.execute(query.values(value=[setting.value]))
    op.drop_table("outcome")
    op.drop_table("adversarial")


def downgrade() -> None:
    raise NotImplementedError("packed outcomes are not unpacked again; keep a copy of the older store")


def _pack_outcomes(connection: sa.Connection, cell: int) -> None:
    """Rows by position are handed out to the cell's batches in their order, as many as each counted."""
    query = sa.text("SELECT * FROM outcome WHERE cell_id = :cell ORDER BY position")
    rows = connection.execute(query, {"cell": cell}).mappings().all()
    good = [made for row in rows if (made := _outcome(row)) is not None]
    draws = len(good[0]["clean"]) if good else 0
    good = [made for made in good if len(made["clean"]) == len(made["adversarial"]) == draws]
    query = sa.text("SELECT id, run_id, samples FROM batch WHERE cell_id = :cell ORDER BY id")
    batches = connection.execute(query, {"cell": cell}).all()
    start = 0
    for i, batch in enumerate(batches):
        count = batch.samples if isinstance(batch.samples, int) and i < len(batches) - 1 else len(good)
        part = good[start : start + max(count, 0)]
        start += len(part)
        _update(connection, "batch", batch.id, outcome=_packed(part, draws), samples=len(part))
    positions = np.array([made["position"] for made in good[:start]], np.int64)
    _update(connection, "cell", cell, committed=arrays.bits(positions))
    if start < len(rows):
        error = f"{len(rows) - start} outcomes were damaged in a store of schema 0001; run the same command again"
        _update(connection, "cell", cell, status="failed", error=error)


def _outcome(row: sa.RowMapping) -> dict[str, Any] | None:
    """The numbers of an image; None if something else stands there."""
    try:
        made: dict[str, Any] = {name: row[name] for name in (*_WHOLE, *_REAL)}
        made |= {name: json.loads(row[name]) for name in ("clean", "adversarial")}
        whole = [*(made[name] for name in _WHOLE), *made["clean"], *made["adversarial"]]
        if any(type(number) is not int for number in whole) or min(made["position"], made["label"]) < 0:
            return None
        return made if np.isfinite([float(made[name]) for name in _REAL]).all() else None
    except (TypeError, ValueError, RecursionError):
        return None


def _packed(made: Sequence[dict[str, Any]], draws: int) -> bytes:
    def column(name: str, kind: type[np.generic]) -> NDArray[Any]:
        return np.array([row[name] for row in made], kind)

    columns: dict[str, NDArray[Any]] = {name: column(name, np.int64) for name in _WHOLE}
    columns |= {name: column(name, np.int64).reshape(len(made), draws) for name in ("clean", "adversarial")}
    columns |= {name: column(name, np.float64) for name in _REAL}
    return arrays.pack(columns)


def _pack_images(connection: sa.Connection, crafting: int) -> None:
    where = {"crafting": crafting}
    shape = connection.execute(
        sa.text("SELECT channels, height, width FROM crafting WHERE id = :crafting"), where
    ).one()
    query = sa.text("SELECT * FROM adversarial WHERE crafting_id = :crafting ORDER BY position")
    kept: list[int] = []
    for rows in _pieces(connection.execute(query, where).mappings().all()):
        good = [(row, raw) for row in rows if (raw := _raw(row, shape)) is not None]
        if not good:
            continue
        x = np.stack([np.frombuffer(raw, "<f4").reshape(tuple(shape)) for _, raw in good])
        position = np.array([row["position"] for row, _ in good], np.int64)
        rest: dict[str, NDArray[Any]] = {
            "x": x.astype(np.float32),
            "first_success": np.array([row["first_success"] for row, _ in good], np.int64),
            "forwards": np.array([row["forwards"] for row, _ in good], np.float64),
            "backwards": np.array([row["backwards"] for row, _ in good], np.float64),
        }
        values = {
            "crafting_id": crafting,
            "samples": len(good),
            "position": arrays.pack({"position": position}),
            "images": arrays.pack(rest),
        }
        connection.execute(_CRAFTED.insert().values(values))
        kept += position.tolist()
    _update(connection, "crafting", crafting, committed=arrays.bits(np.array(kept, np.int64)))


def _raw(row: sa.RowMapping, shape: Sequence[Any]) -> bytes | None:
    """The image's bytes; None if they are not those that were stored. It is made again."""
    try:
        raw = zlib.decompress(row["x"])
        numbers = [row["position"], row["first_success"]]
        if any(type(number) is not int for number in numbers) or row["position"] < 0:
            return None
        if not np.isfinite([float(row["forwards"]), float(row["backwards"])]).all():
            return None
        fits = len(raw) == 4 * int(np.prod([int(side) for side in shape]))
    except (TypeError, ValueError, zlib.error):
        return None
    return raw if fits and hashlib.sha256(raw).hexdigest() == row["sha256"] else None


def _pieces(rows: Sequence[sa.RowMapping]) -> Iterator[Sequence[sa.RowMapping]]:
    for start in range(0, len(rows), _PIECE):
        yield rows[start : start + _PIECE]


_CRAFTED = sa.table("crafted", *map(sa.column, ("crafting_id", "samples", "position", "images")))

_SETTING = sa.table("setting", sa.column("key", sa.String), sa.column("value", sa.JSON))


def _update(connection: sa.Connection, table: str, number: int, **values: Any) -> None:
    known = sa.table(table, sa.column("id"), *map(sa.column, values))
    connection.execute(sa.update(known).where(known.c.id == number).values(**values))
