"""Events, as they are kept: the newest EVENTS_KEPT."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import tables
from fleet_controller.records import Event

EVENTS_KEPT = 100_000


def record(
    connection: Connection,
    now: float,
    kind: str,
    pool: str | None,
    host: str | None,
    reason: str,
    data: dict[str, Any],
) -> None:
    result = connection.execute(
        sa.insert(tables.events).values(at=now, kind=kind, pool=pool, host=host, reason=reason, data=data)
    )
    key = result.inserted_primary_key
    if key is not None and key[0] % 1000 == 0:
        connection.execute(sa.delete(tables.events).where(tables.events.c.id <= key[0] - EVENTS_KEPT))


def newest(connection: Connection, after: int, limit: int) -> list[Event]:
    """The newest `limit` with an id above `after`, oldest first."""
    query = (
        sa.select(tables.events)
        .where(tables.events.c.id > after)
        .order_by(tables.events.c.id.desc())
        .limit(limit)
    )
    return [Event(**row) for row in connection.execute(query).mappings()][::-1]
