"""The two long tables: what was decided, and what came in. Each has a bound, kept while it is written.

A decision is some 1 KB: a pool that changes its mind all day fills 50 MB, most stay under 5. An hour of traffic is
some 300 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fleet_controller.journal.tables import decisions, traffic
from fleet_controller.records import DecisionRecord, Mark, Minute

DECISIONS_KEPT_S = 14 * 86400.0
DECISIONS_KEPT = 50_000  # of one pool
TRAFFIC_KEPT_HOURS = 90 * 24
MINUTE_S = 60
HOUR_S = 3600


def keep_decision(connection: Connection, record: DecisionRecord) -> None:
    """Add the decision, or the time until which a known one (same pool, same `at`) holds."""
    mine = decisions.c.pool == record.pool
    values = {"until": record.until, "told": record.told}
    known = connection.execute(sa.update(decisions).where(mine, decisions.c.at == record.at).values(**values))
    if known.rowcount:
        return
    connection.execute(sa.insert(decisions).values(pool=record.pool, at=record.at, **values))
    newest = sa.select(decisions.c.at).where(mine).order_by(decisions.c.at.desc())
    least = connection.scalar(newest.offset(DECISIONS_KEPT - 1).limit(1))
    oldest = max(record.at - DECISIONS_KEPT_S, float("-inf") if least is None else least)
    connection.execute(sa.delete(decisions).where(mine, decisions.c.at < oldest))


def read_decisions(connection: Connection, pool: str, at: float, limit: int) -> list[DecisionRecord]:
    """The `limit` decisions before or at `at`, newest first."""
    query = (
        sa.select(decisions)
        .where(decisions.c.pool == pool, decisions.c.at <= at)
        .order_by(decisions.c.at.desc())
        .limit(limit)
    )
    return [DecisionRecord(**row) for row in connection.execute(query).mappings()]


def keep_traffic(connection: Connection, pool: str, minutes: Iterable[Minute], mark: Mark) -> None:
    """Add minutes that are over. One that is there already is counted together with the new one."""
    by_hour: dict[int, list[Minute]] = {}
    for minute in minutes:
        by_hour.setdefault(minute.at // HOUR_S, []).append(minute)
    for hour, found in by_hour.items():
        here = (traffic.c.pool == pool, traffic.c.hour == hour)
        known = connection.scalar(sa.select(traffic.c.counts).where(*here))
        counts: list[int | None] = list(known) if known is not None else [None] * (HOUR_S // MINUTE_S)
        for minute in found:
            place = minute.at % HOUR_S // MINUTE_S
            counts[place] = (counts[place] or 0) + minute.requests
        values = {"counts": counts, "mark": asdict(mark)}
        if known is not None:
            connection.execute(sa.update(traffic).where(*here).values(**values))
            continue
        connection.execute(sa.insert(traffic).values(pool=pool, hour=hour, **values))
        old = traffic.c.hour <= hour - TRAFFIC_KEPT_HOURS
        connection.execute(sa.delete(traffic).where(traffic.c.pool == pool, old))


def read_traffic(connection: Connection, pool: str, since: float) -> list[Minute]:
    """The minutes that are known, from the one on that contains `since`, oldest first."""
    query = (
        sa.select(traffic.c.hour, traffic.c.counts)
        .where(traffic.c.pool == pool, traffic.c.hour >= int(since // HOUR_S))
        .order_by(traffic.c.hour)
    )
    found = (
        Minute(hour * HOUR_S + place * MINUTE_S, count)
        for hour, counts in connection.execute(query)
        for place, count in enumerate(counts)
        if count is not None
    )
    return [minute for minute in found if minute.at > since - MINUTE_S]


def read_mark(connection: Connection, pool: str) -> Mark | None:
    """Where the count stood when the newest minute ended."""
    query = sa.select(traffic.c.mark).where(traffic.c.pool == pool).order_by(traffic.c.hour.desc()).limit(1)
    mark = connection.scalar(query)
    return None if mark is None else Mark(**mark)
