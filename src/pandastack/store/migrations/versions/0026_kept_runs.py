"""Functions: until when the machine of a failed run is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("function_runs", sa.Column("kept_until", sa.Double, nullable=True))


def downgrade() -> None:
    op.drop_column("function_runs", "kept_until")
