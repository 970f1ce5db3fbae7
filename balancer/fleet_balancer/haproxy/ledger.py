"""What HAProxy reports, in the house's books: in flight, waiting, healthy. Reads no clock and asks nobody."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fleet_balancer.front import Front
from fleet_balancer.haproxy.layout import Layout
from fleet_balancer.haproxy.process import HaproxyProcess
from fleet_balancer.haproxy.rows import BACKEND, NOT_YET, Row
from fleet_balancer.haproxy.tally import Directory
from fleet_balancer.pool import Pool
from fleet_wire.balancer import BackendList, PoolStatus

log = logging.getLogger(__name__)


class Ledger:
    """`directory`: whom HAProxy's names mean."""

    def __init__(self, front: Front, layout: Layout) -> None:
        self.directory = Directory({}, {}, [])
        self._front = front
        self._layout = layout
        self._arrivals: dict[str, int] = {}

    def learn(self, new: BackendList) -> None:
        """Whom the names mean from now on. Who stood in a place last is remembered: the log is behind."""
        directory = self.directory
        directory.keys = [key.name for key in new.keys or ()]
        for name, pool in self._front.pools.items():
            directory.pools[self._layout.id_of(name)] = pool
        for member in self._front.members:
            slots = self._layout.slots[self._layout.id_of(member.pool)]
            directory.places[slots.place_of((member.name, member.address))] = member

    def over(self) -> dict[str, int]:
        """Requests of each pool that have ended."""
        return {name: _over(pool) for name, pool in self._front.pools.items()}

    def take_counts(self, processes: Sequence[HaproxyProcess], over: dict[str, int]) -> None:
        """What `processes` had in flight when they were asked. `over`: over() from before that."""
        counts: dict[str, int] = {}
        for process in processes:
            for place, number in process.in_flight.items():
                counts[place] = counts.get(place, 0) + number
        for place, member in self.directory.places.items():
            number = counts.get(place, 0)
            if member.in_flight != number:
                member.in_flight = number
                member.changed()
        for name, pool in self._front.pools.items():
            in_flight = sum(member.in_flight for member in pool.members)
            seen = over.get(name, 0) + self._queued(name, processes) + in_flight
            self._arrivals[name] = max(self._arrivals.get(name, 0), seen)

    def take_health(self, process: HaproxyProcess, rows: Sequence[Row], now: float) -> None:
        """What its checks found."""
        for row in rows:
            member = self.directory.places.get(row.name)
            if member is None or row.name == BACKEND or (row.pool, row.name) not in process.known:
                continue
            if process.known[row.pool, row.name].ip is None:
                continue
            if row.up and not member.health.healthy:
                changed = member.health.passed(now)
            elif not row.up and member.health.healthy:
                changed = member.health.connect_failed(row.error or "it fails its checks", now)
            else:
                changed = False
                if row.error != NOT_YET and (not row.up or row.error is None):
                    member.health.error = row.error
            if changed:
                if row.up:
                    log.info("host %s is in", member.name)
                else:
                    log.warning("host %s is out: %s", member.name, member.health.error)
                self._front.refresh(member, now)

    def lost(self, process: HaproxyProcess) -> None:
        """What a process had in flight when it died was broken off."""
        for place, number in process.in_flight.items():
            member = self.directory.places.get(place)
            pool = None if member is None else self._front.pool_of(member)
            if member is not None and pool is not None:
                pool.errors += number
                member.requests += number
        process.in_flight, process.queued = {}, {}

    def pool_status(self, name: str, processes: Sequence[HaproxyProcess]) -> PoolStatus:
        """The log is behind the counts by a moment: what it has not told of yet counts as in flight."""
        pool = self._front.pools[name]
        queued = self._queued(name, processes)
        arrivals = max(self._arrivals.get(name, 0), _over(pool) + queued)
        return pool.status().model_copy(
            update={"arrivals": arrivals, "queued": queued, "in_flight": arrivals - _over(pool) - queued}
        )

    def _queued(self, name: str, processes: Sequence[HaproxyProcess]) -> int:
        pool_id = self._layout.id_of(name)
        return sum(process.queued.get(pool_id, 0) for process in processes)


def _over(pool: Pool) -> int:
    return pool.completed + pool.errors + pool.refused + pool.abandoned
