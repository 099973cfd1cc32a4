"""Functions: attempts of asynchronous runs with the events that they need, and callbacks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("function_runs", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("function_runs", sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("function_runs", sa.Column("attempts", sa.JSON(), nullable=True))
    op.add_column("function_runs", sa.Column("next_attempt_at", sa.Double, nullable=True))
    op.add_column("function_runs", sa.Column("callback", sa.Text(), nullable=True))
    op.create_table(
        "function_run_events",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_function_run_events"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["function_runs.id"], name="fk_function_run_events_run_id", ondelete="CASCADE"
        ),
    )
    op.add_column("webhook_endpoints", sa.Column("owner", sa.String(64), nullable=False, server_default=""))
    op.add_column("webhook_deliveries", sa.Column("url", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("webhook_deliveries", "url")
    op.drop_column("webhook_endpoints", "owner")
    op.drop_table("function_run_events")
    for name in ("callback", "next_attempt_at", "attempts", "retries", "attempt"):
        op.drop_column("function_runs", name)
