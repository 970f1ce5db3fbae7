"""HAProxy's log lines into the house's counters: the same Pool, the same Ejector, the same histogram. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleet_balancer.failure.outcome import outcome_of
from fleet_balancer.haproxy.lines import Line, read_access, read_line
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Claim, Pool
from fleet_balancer.telemetry.access_log import AccessLogWriter


@dataclass
class Directory:
    """Whom HAProxy's names mean. `place` gives who stands, or stood last, in a place."""

    pools: dict[str, Pool]
    places: dict[str, Member]
    keys: list[str]


def count(lines: Iterable[str], directory: Directory, now: float) -> bool:
    """Count a block of lines that came at `now`; True where one of them failed, which may have ejected a host."""
    failed = False
    served: dict[tuple[str, str], list[float]] = {}
    for text in lines:
        line = read_line(text)
        if line is None:
            continue
        pool = directory.pools.get(line.pool)
        if pool is None:
            continue
        if line.ending == "answered" and line.status < 400 and line.place is not None:
            served.setdefault((line.pool, line.place), []).append(line.ms)
        else:
            _count_one(line, pool, directory, now)
            failed = True
    for (pool_id, place), latencies in served.items():
        member = directory.places.get(place)
        if member is None:
            continue
        pool = directory.pools[pool_id]
        for ms in latencies:
            pool.settle(_claim(pool, member, now - ms / 1000.0), "completed", ms, now)
    return failed


def _count_one(line: Line, pool: Pool, directory: Directory, now: float) -> None:
    member = directory.places.get(line.place) if line.place is not None else None
    if member is None:
        # Nobody had it, or nobody knows any more who had.
        if line.ending == "abandoned":
            pool.abandoned += 1
        elif line.ending == "answered":
            pool.completed += 1
        else:
            pool.refused += 1
        return
    claim = _claim(pool, member, now - line.ms / 1000.0)
    if line.ending == "answered":
        outcome = outcome_of(line.status, retry_after=line.busy, own_deadline=line.own_deadline)
        pool.settle(claim, outcome, line.ms, now)
    elif line.ending == "broken":
        excused = line.status == 504 and line.own_deadline
        pool.settle(claim, "excused" if excused else "error", line.ms, now)
    else:
        pool.settle(claim, line.ending, line.ms, now)


def _claim(pool: Pool, member: Member, at: float) -> Claim:
    """As if the pool had placed it: settle() takes it off again."""
    member.in_flight += 1
    member.requests += 1
    pool.in_flight += 1
    return Claim(pool, member, None, None, at)


def write_down(lines: Iterable[str], directory: Directory, writer: AccessLogWriter, now: float) -> None:
    """The same lines into the access log."""
    for text in lines:
        line = read_line(text)
        access = None if line is None or line.rest is None else read_access(line.rest)
        if line is None or access is None:
            continue
        pool = directory.pools.get(line.pool)
        member = None if line.place is None else directory.places.get(line.place)
        key = None if access.key is None else directory.keys[int(access.key[1:])]
        writer.record(
            access.request_id.encode(),
            499 if line.ending == "abandoned" else line.status,
            now - line.ms / 1000.0,
            now,
            access.client.encode(),
            access.method.encode(),
            access.target.encode(),
            access.sent,
            None if member is None else member.name,
            None if pool is None else pool.name,
            access.model,
            key,
            access.retries,
            "unavailable" if line.ending == "refused" else None,
        )
