"""The tables, as the newest migration leaves them.

A change here needs a migration in `migrations/versions` and a new `REVISION`; a test compares the two.
Cells and craftings have a number besides their key, which keeps the rows that refer to them small. The seal of a
row is a digest of everything else in it (`benchbox.store.seals`); rows of schema 0001 have none.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

#: The newest migration. A store at this revision is opened without loading Alembic.
REVISION = "0002"


def now() -> str:
    """The time as the store writes it, ISO 8601 in UTC to the second: `2025-01-31T12:00:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Bytes(LargeBinary):
    """Bytes as the driver gives them: a damaged file may hold anything in their place, and the seal finds it."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """The value stays as it is."""


METADATA = MetaData(
    naming_convention={  # so that later migrations can name what they change, on every database
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

RUN = Table(
    "run",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("created", String(32), nullable=False, default=now),
    Column("finished", String(32)),
    Column("status", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("provenance", JSON, nullable=False),
    Column("seal", String(64)),
)

CELL = Table(
    "cell",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),  # the run that added it
    Column("created", String(32), nullable=False, default=now),
    Column("defense", String(255), nullable=False),
    Column("dataset", String(255), nullable=False),
    Column("access", String(32), nullable=False),
    Column("attack", String(255), nullable=False),
    Column("samples", Integer, nullable=False),  # length of its sample list
    Column("status", String(16), nullable=False),  # partial, done, failed
    Column("error", Text, nullable=False),
    Column("record", JSON, nullable=False),  # the whole cell; the columns above repeat it for people
    Column("committed", Bytes),  # one bit a position, set when its outcome is in a batch; NULL: none is
    Column("seal", String(64)),
)

BATCH = Table(
    "batch",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("cell_id", Integer, ForeignKey("cell.id"), nullable=False, index=True),
    Column("run_id", Integer, ForeignKey("run.id"), nullable=False),  # may be a later run than the cell's
    Column("created", String(32), nullable=False, default=now),
    Column("samples", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("outcome", Bytes),  # of its samples, packed (`benchbox.store.arrays`)
    Column("seal", String(64)),
)

CRAFTING = Table(
    "crafting",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),  # Cell.craft_key
    Column("created", String(32), nullable=False, default=now),
    Column("channels", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("committed", Bytes),  # one bit a position, set when its image is there; NULL: none is
    Column("seal", String(64)),
)

CRAFTED = Table(
    "crafted",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("crafting_id", Integer, ForeignKey("crafting.id"), nullable=False, index=True),
    Column("samples", Integer, nullable=False),
    Column("position", Bytes, nullable=False),  # of each image, packed
    Column("images", Bytes, nullable=False),  # and what making them took, packed
    Column("seal", String(64)),
)

ARTIFACT = Table(
    "artifact",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("created", String(32), nullable=False, default=now),
    Column("card", JSON, nullable=False),
    Column("seal", String(64)),
)

SETTING = Table(
    "setting",
    METADATA,
    Column("key", String(255), primary_key=True),
    Column("created", String(32), nullable=False, default=now),
    Column("value", JSON, nullable=False),
    Column("seal", String(64)),
)

ATTACHMENT = Table(
    "attachment",
    METADATA,
    Column("subject", String(255), primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("created", String(32), nullable=False, default=now),
    Column("record", JSON, nullable=False),
    Column("seal", String(64)),
)

LEASE = Table(
    "lease",
    METADATA,
    Column("name", String(255), primary_key=True),  # what is worked on: cell/KEY, training/DIGEST, run/NUMBER
    Column("owner", String(64), nullable=False),  # a random token, one an open store
    Column("place", String(255), nullable=False),  # the host, and whose process numbers `pid` is one of
    Column("pid", Integer, nullable=False),
    Column("expires", Float, nullable=False),  # seconds since 1970
)
