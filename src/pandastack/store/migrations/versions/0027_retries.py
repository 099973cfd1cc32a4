"""Retries of CI jobs from a checkpoint, and runner pools that are refreshed by a schedule."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runner_pools", sa.Column("refresh_at", sa.Double, nullable=True))
    op.add_column("jobs", sa.Column("checkpoint", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("jobs", sa.Column("retry_of", sa.String(36), nullable=True))
    op.add_column("jobs", sa.Column("from_step", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for column in ("from_step", "retry_of", "checkpoint"):
        op.drop_column("jobs", column)
    op.drop_column("runner_pools", "refresh_at")
