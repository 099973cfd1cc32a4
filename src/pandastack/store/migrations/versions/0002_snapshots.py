"""Snapshots and checkpoints, and the columns of sandboxes that refer to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("from_snapshot", sa.String(36), nullable=True))
    op.add_column("sandboxes", sa.Column("on_expire", sa.String(16), nullable=True))
    op.add_column("sandboxes", sa.Column("checkpoint_every", sa.Double, nullable=True))
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("sandbox_id", sa.String(36), nullable=False),
        sa.Column("template", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("cpu", sa.Integer, nullable=False),
        sa.Column("memory_mb", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("dirty_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_snapshots_workspace"),
    )
    op.create_index("ix_snapshots_workspace_created_at", "snapshots", ["workspace", "created_at"])
    op.create_index("ix_snapshots_sandbox_id", "snapshots", ["sandbox_id"])


def downgrade() -> None:
    op.drop_table("snapshots")
    for column in ("checkpoint_every", "on_expire", "from_snapshot"):
        op.drop_column("sandboxes", column)
