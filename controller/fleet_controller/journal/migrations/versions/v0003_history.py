"""What was decided and what came in: for `explain --at` and `traffic export`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("pool", sa.String, primary_key=True),
        sa.Column("at", sa.Float, primary_key=True),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("told", sa.JSON, nullable=False),
    )
    op.create_table(
        "traffic",
        sa.Column("pool", sa.String, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("mark", sa.JSON, nullable=False),
    )
