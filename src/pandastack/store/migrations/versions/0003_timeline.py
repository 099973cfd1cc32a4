"""Checkpoints after commands, and the commands before each checkpoint."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    off = sa.false()
    op.add_column("sandboxes", sa.Column("checkpoint_after_exec", sa.Boolean, nullable=False, server_default=off))
    op.add_column("snapshots", sa.Column("automatic", sa.Boolean, nullable=False, server_default=off))
    op.add_column("snapshots", sa.Column("commands", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("snapshots", sa.Column("command_count", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    for column in ("command_count", "commands", "automatic"):
        op.drop_column("snapshots", column)
    op.drop_column("sandboxes", "checkpoint_after_exec")
