"""The API keys that are in force; of a key itself only the digest. Whoever comes or goes is told by an event."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import events, seal, tables
from fleet_controller.records import KeyRecord


def everyone(connection: Connection) -> list[KeyRecord]:
    """By name."""
    rows = connection.execute(sa.select(tables.api_keys).order_by(tables.api_keys.c.name)).mappings()
    found = [seal.opened(tables.api_keys, row) for row in rows]
    return [KeyRecord(**{**row, "pools": tuple(row["pools"])}) for row in found]


def add(connection: Connection, key: KeyRecord) -> None:
    """Raises IntegrityError where there is one of this name or digest."""
    connection.execute(sa.insert(tables.api_keys).values(**{**asdict(key), "pools": list(key.pools)}))
    seal.put(connection, tables.api_keys, tables.api_keys.c.name == key.name)
    events.record(connection, key.created_at, "key", None, None, f"API key {key.name} was created", {})


def revoke(connection: Connection, name: str, now: float) -> bool:
    """False where there is none of this name."""
    gone = connection.execute(sa.delete(tables.api_keys).where(tables.api_keys.c.name == name))
    if gone.rowcount:
        events.record(connection, now, "key", None, None, f"API key {name} was revoked", {})
    return bool(gone.rowcount)
