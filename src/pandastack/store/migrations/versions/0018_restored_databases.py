"""Databases that are restored from the archive of another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("databases", sa.Column("restored", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("databases", sa.Column("target_time", sa.Double, nullable=True))


def downgrade() -> None:
    op.drop_column("databases", "target_time")
    op.drop_column("databases", "restored")
