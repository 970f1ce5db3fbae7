"""The pools' records, row by row."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal import seal, tables, texts
from fleet_controller.records import PoolRecord


def one(connection: Connection, name: str) -> PoolRecord:
    """A fresh one where it has none."""
    query = sa.select(tables.pools).where(tables.pools.c.name == name)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return PoolRecord(name)
    content = seal.opened(tables.pools, row)
    memory = texts.brought_back(connection, name, content["policy_state"])
    return PoolRecord(**{**content, "policy_state": memory})


def save(connection: Connection, pool: PoolRecord) -> None:
    mine = tables.pools.c.name == pool.name
    values = {
        "desired": pool.desired,
        "why": pool.why,
        "paused": pool.paused,
        "policy_state": texts.put_away(connection, pool.name, pool.policy_state),
        "learned": pool.learned,
        "last_decision": pool.last_decision,
    }
    updated = connection.execute(sa.update(tables.pools).where(mine).values(**values))
    if updated.rowcount == 0:
        connection.execute(sa.insert(tables.pools).values(name=pool.name, **values))
    seal.put(connection, tables.pools, mine)
