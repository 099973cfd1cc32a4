"""Workspaces, sandboxes, their events, and API tokens."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    workspaces = op.create_table(
        "workspaces",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
    )
    op.bulk_insert(workspaces, [{"id": "default", "created_at": time.time()}])
    _create_sandboxes()
    _create_events()
    _create_api_tokens()


def _create_sandboxes() -> None:
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("template", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("cpu", sa.Integer, nullable=False),
        sa.Column("memory_mb", sa.Integer, nullable=False),
        sa.Column("boot_ms", sa.Integer, nullable=True),
        sa.Column("boot_mode", sa.String(32), nullable=True),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("persistent", sa.Boolean, nullable=False),
        sa.Column("ttl_seconds", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_active_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_sandboxes_workspace"),
    )
    op.create_index("ix_sandboxes_workspace_created_at", "sandboxes", ["workspace", "created_at"])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("sandbox_id", sa.String(36), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_events_workspace"),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.id"], name="fk_events_sandbox_id", ondelete="CASCADE"),
    )
    op.create_index("ix_events_sandbox_id_id", "events", ["sandbox_id", "id"])


def _create_api_tokens() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name="pk_api_tokens"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_api_tokens_workspace"),
        sa.UniqueConstraint("prefix", name="uq_api_tokens_prefix"),
    )


def downgrade() -> None:
    for table in ("api_tokens", "events", "sandboxes", "workspaces"):
        op.drop_table(table)
