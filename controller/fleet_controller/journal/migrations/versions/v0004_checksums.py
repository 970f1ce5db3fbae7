"""A checksum in each row that the controller acts on. The journal fills them in right after."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for table in ("hosts", "pools", "actions", "api_keys"):
        op.add_column(table, sa.Column("checksum", sa.String))
