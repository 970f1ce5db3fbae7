"""The hosts' records and the actions on them, row by row. A move is written together with its event."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import events, seal, tables
from fleet_controller.lifecycle import HostState, check_move
from fleet_controller.records import UNKNOWN_ACTION, Action, HostRecord


def everyone(connection: Connection) -> dict[str, HostRecord]:
    """Every host by its name."""
    rows = connection.execute(sa.select(tables.hosts).order_by(tables.hosts.c.name)).mappings()
    return {row["name"]: _host(row) for row in rows}


def one(connection: Connection, name: str) -> HostRecord:
    """Raises KeyError for an unknown one."""
    query = sa.select(tables.hosts).where(tables.hosts.c.name == name)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise KeyError(name)
    return _host(row)


def enlist(connection: Connection, names: Iterable[str], now: float, suspects: Container[str]) -> None:
    """A record for each that has none: off, or where it is one of `suspects` unreachable."""
    known = set(connection.scalars(sa.select(tables.hosts.c.name)))
    new = [
        {
            "name": n,
            "state": "unreachable" if n in suspects else "off",
            "since": now,
            "reason": "the state store does not know it; it is looked at first" if n in suspects else "",
            "action_id": UNKNOWN_ACTION if n in suspects else None,
            "failures": 0,
            "retry_at": 0.0,
            "cordoned": False,
            "unproven": False,
        }
        for n in names
        if n not in known
    ]
    if new:
        connection.execute(sa.insert(tables.hosts), new)
        seal.put(connection, tables.hosts, tables.hosts.c.name.in_([row["name"] for row in new]))


def dismiss(connection: Connection, names: Iterable[str]) -> None:
    """Forget those of them that are off."""
    here = tables.hosts.c.name.in_(list(names))
    connection.execute(sa.delete(tables.hosts).where(here, tables.hosts.c.state == "off"))


def move(
    connection: Connection,
    name: str,
    state: HostState,
    reason: str,
    now: float,
    changes: dict[str, Any],
) -> HostRecord:
    """Raises IllegalMove, and KeyError for an unknown host."""
    before = one(connection, name)
    check_move(name, before.state, state)
    values: dict[str, Any] = {**({"unproven": False} if "error" in changes else {}), **changes}
    if state is not before.state:
        values |= {"state": state.value, "since": now, "reason": reason}
    if values:
        _change(connection, name, values)
    if state is not before.state or (changes.get("error") and changes["error"] != before.error):
        data = {"from": before.state.value}
        if changes.get("error"):
            data["error"] = changes["error"]
        pool = changes.get("pool", before.pool)
        events.record(connection, now, state.value, pool, name, reason, data)
    return one(connection, name)


def amend(connection: Connection, name: str, changes: dict[str, Any]) -> None:
    """Raises KeyError for an unknown host."""
    one(connection, name)  # a damaged row must not be sealed again
    _change(connection, name, changes)


def begin(connection: Connection, action: Action) -> None:
    """Raises IntegrityError where the host has an open action already."""
    connection.execute(
        sa.insert(tables.actions).values(
            id=action.id,
            host=action.host,
            kind=action.kind,
            reason=action.reason,
            created_at=action.created_at,
        )
    )
    seal.put(connection, tables.actions, tables.actions.c.id == action.id)


def close(connection: Connection, action: Action, now: float, error: str | None) -> None:
    mine = tables.actions.c.id == action.id
    connection.execute(sa.update(tables.actions).where(mine).values(finished_at=now, error=error))
    seal.put(connection, tables.actions, mine)


def open_actions(connection: Connection) -> list[Action]:
    """The oldest first."""
    query = sa.select(tables.actions).where(tables.actions.c.finished_at.is_(None))
    rows = connection.execute(query.order_by(tables.actions.c.created_at)).mappings()
    found = [seal.opened(tables.actions, row) for row in rows]
    return [Action(r["id"], r["host"], r["kind"], r["reason"], r["created_at"]) for r in found]


def _change(connection: Connection, name: str, values: dict[str, Any]) -> None:
    connection.execute(sa.update(tables.hosts).where(tables.hosts.c.name == name).values(**values))
    seal.put(connection, tables.hosts, tables.hosts.c.name == name)


def _host(row: sa.RowMapping) -> HostRecord:
    content = seal.opened(tables.hosts, row)
    return HostRecord(**{**content, "state": HostState(content["state"])})
