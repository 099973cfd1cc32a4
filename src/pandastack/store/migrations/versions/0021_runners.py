"""Runner pools and their jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "runner_pools",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("version", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_runner_pools"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_runner_pools_workspace"),
    )
    op.create_index("ix_runner_pools_workspace_name", "runner_pools", ["workspace", "name"], unique=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("pool_id", sa.String(36), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=True),
        sa.Column("ended_at", sa.Double, nullable=True),
        sa.Column("version", sa.String(36), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("failed_step", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("artifacts_bytes", sa.BigInteger(), nullable=True),
        sa.Column("kept_until", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_jobs_workspace"),
    )
    op.create_index("ix_jobs_workspace_created_at", "jobs", ["workspace", "created_at"])


def downgrade() -> None:
    op.drop_table("jobs")
    op.drop_table("runner_pools")
