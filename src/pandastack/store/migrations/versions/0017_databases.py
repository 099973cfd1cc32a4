"""Databases, and sandboxes that are the machines of products."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("product", sa.String(16), nullable=True))
    op.add_column("sandboxes", sa.Column("always_on", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "databases",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("size", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("always_on", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("cloned_from", sa.String(36), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_databases"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_databases_workspace"),
    )
    op.create_index("ix_databases_workspace_created_at", "databases", ["workspace", "created_at"])


def downgrade() -> None:
    op.drop_table("databases")
    op.drop_column("sandboxes", "always_on")
    op.drop_column("sandboxes", "product")
