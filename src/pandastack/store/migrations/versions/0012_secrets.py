"""Secrets, encrypted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(36), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("sandbox_id", sa.String(36), nullable=True),
        sa.Column("placeholder", sa.String(64), nullable=False),
        sa.Column("hosts", sa.JSON, nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "owner", "name", name="pk_secrets"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_secrets_workspace"),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.id"], name="fk_secrets_sandbox_id", ondelete="CASCADE"),
    )
    op.create_index("ix_secrets_sandbox_id", "secrets", ["sandbox_id"])


def downgrade() -> None:
    op.drop_table("secrets")
