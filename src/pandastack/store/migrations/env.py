"""Alembic's entry point: runs the revisions on the connection that ``migrations.upgrade`` hands over."""

from __future__ import annotations

from alembic import context

from pandastack.store.product_schema import databases

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=databases.metadata,
    render_as_batch=True,  # SQLite changes columns by copying the table
    transaction_per_migration=False,
)
context.run_migrations()
