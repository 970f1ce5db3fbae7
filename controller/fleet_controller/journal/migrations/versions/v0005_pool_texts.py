"""Long texts of a pool's memory get rows of their own. What stands in a pool's row moves at its next change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "pool_texts",
        sa.Column("pool", sa.String, primary_key=True),
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
