"""Runs, cells, outcomes, adversarial images, artifacts, settings and attachments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("finished", sa.String(32)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False),
    )
    op.create_table(
        "cell",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(64), nullable=False, unique=True),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("run.id"), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("defense", sa.String(255), nullable=False),
        sa.Column("dataset", sa.String(255), nullable=False),
        sa.Column("access", sa.String(32), nullable=False),
        sa.Column("attack", sa.String(255), nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("cell_id", sa.Integer, sa.ForeignKey("cell.id"), nullable=False, index=True),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("run.id"), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
    )
    op.create_table(
        "outcome",
        sa.Column("cell_id", sa.Integer, sa.ForeignKey("cell.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("clean", sa.Text, nullable=False),
        sa.Column("adversarial", sa.Text, nullable=False),
        sa.Column("first_success", sa.Integer, nullable=False),
        sa.Column("linf", sa.Float, nullable=False),
        sa.Column("l2", sa.Float, nullable=False),
        sa.Column("forwards", sa.Float, nullable=False),
        sa.Column("backwards", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "crafting",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(64), nullable=False, unique=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
    )
    op.create_table(
        "adversarial",
        sa.Column("crafting_id", sa.Integer, sa.ForeignKey("crafting.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("first_success", sa.Integer, nullable=False),
        sa.Column("forwards", sa.Float, nullable=False),
        sa.Column("backwards", sa.Float, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("x", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "artifact",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("card", sa.JSON, nullable=False),
    )
    op.create_table(
        "setting",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_table(
        "attachment",
        sa.Column("subject", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(64), primary_key=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "attachment",
        "setting",
        "artifact",
        "adversarial",
        "crafting",
        "outcome",
        "batch",
        "cell",
        "run",
    ):
        op.drop_table(table)
