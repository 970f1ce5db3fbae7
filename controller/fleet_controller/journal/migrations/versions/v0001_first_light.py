"""First light: hosts, pools, actions, events, requests, facts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "hosts",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("pool", sa.String),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("action_id", sa.String),
        sa.Column("agent_port", sa.Integer),
        sa.Column("release", sa.String),
        sa.Column("error", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("retry_at", sa.Float, nullable=False),
        sa.Column("startup_s", sa.Float),
        sa.Column("cordoned", sa.Boolean, nullable=False),
    )
    op.create_table(
        "pools",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("desired", sa.Integer),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("policy_state", sa.JSON, nullable=False),
        sa.Column("learned", sa.JSON, nullable=False),
        sa.Column("last_decision", sa.JSON),
    )
    op.create_table(
        "actions",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
        sa.Column("error", sa.Text),
    )
    unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        "one_open_action_a_host",
        "actions",
        ["host"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("pool", sa.String),
        sa.Column("host", sa.String),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("args", sa.JSON, nullable=False),
        sa.Column("answered_at", sa.Float),
        sa.Column("ok", sa.Boolean),
        sa.Column("message", sa.Text),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )
