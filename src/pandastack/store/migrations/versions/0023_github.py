"""GitHub: deliveries that were handled, and runners that are registered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "github_deliveries",
        sa.Column("hook", sa.String(36), nullable=False),
        sa.Column("delivery_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("hook", "delivery_id", name="pk_github_deliveries"),
    )
    op.create_index("ix_github_deliveries_hook_digest", "github_deliveries", ["hook", "digest"])
    op.create_index("ix_github_deliveries_received_at", "github_deliveries", ["received_at"])
    op.create_table(
        "github_runners",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("runner_id", sa.BigInteger(), nullable=True),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_github_runners"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_github_runners_workspace"),
    )


def downgrade() -> None:
    op.drop_table("github_runners")
    op.drop_table("github_deliveries")
