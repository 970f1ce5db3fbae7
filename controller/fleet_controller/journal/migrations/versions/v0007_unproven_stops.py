"""Whether a host is not proven to be free, until now words in its error. A row whose seal was broken stays broken."""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

# The row as it was sealed until now, with the types that it was read with.
_HOSTS = sa.table(
    "hosts",
    sa.column("name", sa.String),
    sa.column("pool", sa.String),
    sa.column("state", sa.String),
    sa.column("since", sa.Float),
    sa.column("reason", sa.Text),
    sa.column("action_id", sa.String),
    sa.column("agent_port", sa.Integer),
    sa.column("release", sa.String),
    sa.column("error", sa.Text),
    sa.column("failures", sa.Integer),
    sa.column("retry_at", sa.Float),
    sa.column("startup_s", sa.Float),
    sa.column("cordoned", sa.Boolean),
    sa.column("boot_s", sa.Float),
    sa.column("checksum", sa.String),
)
_UNPROVEN = sa.table("hosts", sa.column("error", sa.Text), sa.column("unproven", sa.Boolean))


def upgrade() -> None:
    connection = op.get_bind()
    whole = []
    for row in connection.execute(sa.select(_HOSTS)).mappings().all():
        content = {key: value for key, value in row.items() if key != "checksum"}
        seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
        if row["checksum"] == seal:
            whole.append(row["name"])
    op.add_column("hosts", sa.Column("unproven", sa.Boolean, nullable=False, server_default=sa.false()))
    said = _UNPROVEN.c.error.contains("quarantined: it is not proven to be free")
    connection.execute(sa.update(_UNPROVEN).where(said).values(unproven=True))
    for name in whole:  # the journal seals what has no seal, right after
        connection.execute(sa.update(_HOSTS).where(_HOSTS.c.name == name).values(checksum=None))
