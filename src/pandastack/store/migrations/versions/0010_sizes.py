"""How large the disk of a sandbox is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("disk_mb", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("sandboxes", "disk_mb")
