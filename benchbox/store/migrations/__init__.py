"""The history of the store's schema, one file a change; Alembic walks it when a store is opened."""
