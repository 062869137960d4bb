"""What Alembic runs: the open migrations, in the transaction that `benchbox.store.database` holds."""

from __future__ import annotations

from alembic import context

from benchbox.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,  # for its naming convention
    render_as_batch=True,  # SQLite changes a column by copying the table
)
with context.begin_transaction():
    context.run_migrations()
