"""Functions, their versions and their runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "functions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("runtime", sa.String(16), nullable=False),
        sa.Column("entrypoint", sa.Text(), nullable=False),
        sa.Column("template", sa.String(128), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Double, nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_functions"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_functions_workspace"),
    )
    op.create_index("ix_functions_workspace_name", "functions", ["workspace", "name"], unique=True)
    _versions()
    _runs()


def _versions() -> None:
    op.create_table(
        "function_versions",
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("snapshot_id", sa.String(36), nullable=False),
        sa.Column("entrypoint", sa.Text(), nullable=False),
        sa.Column("template", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("code_size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("deploy_ms", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("function_id", "version", name="pk_function_versions"),
        sa.ForeignKeyConstraint(
            ["function_id"], ["functions.id"], name="fk_function_versions_function_id", ondelete="CASCADE"
        ),
    )


def _runs() -> None:
    op.create_table(
        "function_runs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("schedule_id", sa.String(36), nullable=True),
        sa.Column("nominal_at", sa.Double, nullable=True),
        sa.Column("sandbox_id", sa.String(36), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("stdout", sa.Text(), nullable=False),
        sa.Column("stderr", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("start", sa.String(16), nullable=True),
        sa.Column("duration_ms", sa.Double, nullable=True),
        sa.Column("cpu_seconds", sa.Double, nullable=True),
        sa.Column("peak_memory_mb", sa.Double, nullable=True),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_function_runs"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_function_runs_workspace"),
        sa.ForeignKeyConstraint(
            ["function_id"], ["functions.id"], name="fk_function_runs_function_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_function_runs_function_id_started_at", "function_runs", ["function_id", "started_at"])
    op.create_index(
        "ix_function_runs_schedule_id_nominal_at", "function_runs", ["schedule_id", "nominal_at"], unique=True
    )
    op.create_index("ix_function_runs_status", "function_runs", ["status"])


def downgrade() -> None:
    op.drop_table("function_runs")
    op.drop_table("function_versions")
    op.drop_table("functions")
