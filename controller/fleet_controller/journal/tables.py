"""The tables. The migrations create them; this file is what the code reads and writes through."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, Text

metadata = MetaData()

hosts = Table(
    "hosts",
    metadata,
    Column("name", String, primary_key=True),
    Column("pool", String),
    Column("state", String, nullable=False),
    Column("since", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("action_id", String),
    Column("agent_port", Integer),
    Column("release", String),
    Column("error", Text),
    Column("failures", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
    Column("startup_s", Float),
    Column("cordoned", Boolean, nullable=False),
    Column("boot_s", Float),
    Column("unproven", Boolean, nullable=False),
    Column("checksum", String),
)

pools = Table(
    "pools",
    metadata,
    Column("name", String, primary_key=True),
    Column("desired", Integer),
    Column("why", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("policy_state", JSON, nullable=False),
    Column("learned", JSON, nullable=False),
    Column("last_decision", JSON),
    Column("checksum", String),
)

# What is long in `policy_state`, and changes more rarely than the rest of it: see texts.py.
pool_texts = Table(
    "pool_texts",
    metadata,
    Column("pool", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("text", Text, nullable=False),
)

# At most one open action a host: a partial unique index in the first migration enforces it.
actions = Table(
    "actions",
    metadata,
    Column("id", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("error", Text),
    Column("checksum", String),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("pool", String),
    Column("host", String),
    Column("reason", Text, nullable=False),
    Column("data", JSON, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("args", JSON, nullable=False),
    Column("answered_at", Float),
    Column("ok", Boolean),
    Column("message", Text),
)

# Only digests: a key itself is shown once and kept nowhere.
api_keys = Table(
    "api_keys",
    metadata,
    Column("name", String, primary_key=True),
    Column("sha256", String, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("rate_per_s", Float),
    Column("burst", Integer),
    Column("share", Float, nullable=False),
    Column("pools", JSON, nullable=False),
    Column("checksum", String),
)

# A decision with its inputs, and until when it was seen to hold. Bounded: see history.py.
decisions = Table(
    "decisions",
    metadata,
    Column("pool", String, primary_key=True),
    Column("at", Float, primary_key=True),
    Column("until", Float, nullable=False),
    Column("told", JSON, nullable=False),
)

# Requests that came in: one row an hour (`hour` counts from 1970), one number a minute, null where nobody knows.
# `mark` is where the count of the balancer stood at the end of the last of these minutes.
traffic = Table(
    "traffic",
    metadata,
    Column("pool", String, primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("counts", JSON, nullable=False),
    Column("mark", JSON, nullable=False),
)

# Single values: "goal" (up or down), "scope" and "operation" (within which bounds), "lock" (which operator is at work),
# "removal_allowed", and "status" (the last tick's picture).
facts = Table(
    "facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", JSON, nullable=False),
)
