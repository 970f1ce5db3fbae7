"""Single values by name, and the operator lock, which is one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import tables

LOCK = "lock"


def get(connection: Connection, name: str) -> Any:
    """None where it was never said."""
    return connection.scalar(sa.select(tables.facts.c.value).where(tables.facts.c.name == name))


def put(connection: Connection, name: str, value: Any) -> None:
    updated = connection.execute(
        sa.update(tables.facts).where(tables.facts.c.name == name).values(value=value)
    )
    if updated.rowcount == 0:
        connection.execute(sa.insert(tables.facts).values(name=name, value=value))


def take_lock(
    connection: Connection, holder: dict[str, Any], free: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """Who has it, where somebody does and `free` does not say otherwise; else None, and `holder` has it."""
    current = get(connection, LOCK)
    if current and not free(dict(current)):
        return dict(current)
    put(connection, LOCK, holder)
    return None


def beat_lock(connection: Connection, key: str, now: float) -> bool:
    """False where it is not theirs any more."""
    current = get(connection, LOCK)
    if not current or current.get("id") != key:
        return False
    put(connection, LOCK, {**current, "beat": now})
    return True


def leave_lock(connection: Connection, key: str) -> None:
    current = get(connection, LOCK)
    if current and current.get("id") == key:
        put(connection, LOCK, {})
