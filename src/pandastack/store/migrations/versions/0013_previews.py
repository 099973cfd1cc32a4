"""Tokens of previews."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "preview_tokens",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("sandbox_id", sa.String(36), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("paths", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_preview_tokens"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_preview_tokens_workspace"),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_preview_tokens_sandbox_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_preview_tokens_sandbox_id", "preview_tokens", ["sandbox_id"])


def downgrade() -> None:
    op.drop_table("preview_tokens")
