"""Whether the memory of a sandbox was lost, and what its owner wants then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("on_memory_loss", sa.String(16), nullable=True))
    op.add_column("sandboxes", sa.Column("memory_lost_at", sa.Double(), nullable=True))
    op.add_column("sandboxes", sa.Column("memory_lost_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("memory_lost_reason", "memory_lost_at", "on_memory_loss"):
        op.drop_column("sandboxes", column)
