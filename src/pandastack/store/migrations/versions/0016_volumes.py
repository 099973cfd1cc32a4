"""Volumes, and which sandboxes have them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("size_mb", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("node", sa.String(64), nullable=False, server_default="local"),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_volumes_workspace"),
    )
    op.create_index("ix_volumes_workspace_name", "volumes", ["workspace", "name"], unique=True)
    for table in ("sandboxes", "snapshots"):
        op.add_column(table, sa.Column("volumes", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    for table in ("sandboxes", "snapshots"):
        op.drop_column(table, "volumes")
    op.drop_table("volumes")
