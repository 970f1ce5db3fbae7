"""What operators asked of the controller, and how it answered."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import tables
from fleet_controller.records import Answer, Request


def put(connection: Connection, now: float, kind: str, args: dict[str, Any]) -> int:
    """The id under which its answer comes."""
    result = connection.execute(sa.insert(tables.requests).values(at=now, kind=kind, args=args))
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def unanswered(connection: Connection) -> list[Request]:
    """The oldest first."""
    query = sa.select(tables.requests).where(tables.requests.c.answered_at.is_(None))
    rows = connection.execute(query.order_by(tables.requests.c.id)).mappings()
    return [Request(r["id"], r["kind"], r["args"], r["at"]) for r in rows]


def reply(connection: Connection, request_id: int, now: float, ok: bool, message: str) -> None:
    mine = tables.requests.c.id == request_id
    connection.execute(sa.update(tables.requests).where(mine).values(answered_at=now, ok=ok, message=message))


def withdraw(connection: Connection, request_id: int, now: float) -> None:
    """Unless it was answered."""
    mine = tables.requests.c.id == request_id
    still = tables.requests.c.answered_at.is_(None)
    values = {"answered_at": now, "ok": False, "message": "withdrawn"}
    connection.execute(sa.update(tables.requests).where(mine, still).values(**values))


def answer(connection: Connection, request_id: int) -> Answer | None:
    """None for an unknown id."""
    query = sa.select(tables.requests).where(tables.requests.c.id == request_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    return Answer(row["answered_at"] is not None, bool(row["ok"]), row["message"] or "")
