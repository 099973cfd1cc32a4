"""How long a sandbox may exist, and which sandboxes a stopping server hibernated so that the next one wakes them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("max_lifetime_seconds", sa.Integer(), nullable=True))
    op.add_column("sandboxes", sa.Column("wake_at_start", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("sandboxes", "wake_at_start")
    op.drop_column("sandboxes", "max_lifetime_seconds")
