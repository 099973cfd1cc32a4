"""What the check of a function's version has found; secrets, networks and aliases of functions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("function_versions", sa.Column("warnings", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("function_versions", sa.Column("network", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("functions", sa.Column("secrets", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("functions", sa.Column("network", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "function_aliases",
        sa.Column("function_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("function_id", "name", name="pk_function_aliases"),
        sa.ForeignKeyConstraint(
            ["function_id"], ["functions.id"], name="fk_function_aliases_function_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("function_aliases")
    op.drop_column("functions", "network")
    op.drop_column("functions", "secrets")
    op.drop_column("function_versions", "network")
    op.drop_column("function_versions", "warnings")
