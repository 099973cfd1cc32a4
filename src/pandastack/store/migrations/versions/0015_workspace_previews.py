"""Who may see the previews of a workspace's sandboxes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("previews", sa.String(16), nullable=False, server_default="open"))


def downgrade() -> None:
    op.drop_column("workspaces", "previews")
