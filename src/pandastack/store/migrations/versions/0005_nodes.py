"""The node that holds each sandbox and each snapshot. Older records belong to the only node there was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("sandboxes", "snapshots"):
        op.add_column(table, sa.Column("node", sa.String(64), nullable=False, server_default="local"))


def downgrade() -> None:
    for table in ("snapshots", "sandboxes"):
        op.drop_column(table, "node")
