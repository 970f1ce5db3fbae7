"""What a pick costs, with few hosts and with many: microseconds of CPU time, medians of interleaved rounds.

pick: Picker.pick alone. place: pick, the in-flight count and touch. request: Pool.claim and Pool.settle, all included.
Cases: plain; third: a third of the hosts does not have the model; memory: a third is known to lack the memory for it;
tried: two hosts have failed the request already; capped: 8 at once on a host, and most hosts are there.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections import deque
from typing import get_args

from fleet_balancer.ask import Ask
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member, MemoryReport
from fleet_balancer.pool import Claim, Pool
from fleet_wire.balancer import Backend, ModelNeed, PoolConfig, Routing

CASES = ("plain", "third", "memory", "tried", "capped")
GIB = 1 << 30
ALL: tuple[Routing, ...] = get_args(Routing)


def pool_of(routing: Routing, hosts: int, case: str) -> Pool:
    """A pool of so many healthy hosts."""
    needs = [ModelNeed(name="m", device_memory_bytes=4 * GIB)] if case == "memory" else []
    config = PoolConfig(
        routing=routing,
        models=needs,
        max_in_flight_per_server=8 if case == "capped" else None,
        slow_start_s=0,
    )
    pool = Pool(config, random.Random(1), 3.0)
    members = []
    for i in range(hosts):
        models = {"m" if i % 3 else "other": "1"} if case == "third" else {}
        member = Member(Backend(name=f"h{i}", address=f"h{i}:1", models=models), HealthRule())
        member.health.passed()
        members.append(member)
    pool.replace(members)
    if case == "memory":
        for i, member in enumerate(members):
            pool.reported(member, MemoryReport(1e9, 2 * GIB if i % 3 else 7 * GIB, 8 * GIB))
    return pool


class Traffic:
    """A pool under load: the oldest request of `held` ends as a new one comes."""

    def __init__(self, routing: Routing, hosts: int, case: str, rng: random.Random) -> None:
        self.pool = pool_of(routing, hosts, case)
        self.now = 1e9
        self.tried = self.pool.members[:2] if case == "tried" else ()
        self.hashed = routing == "consistent_hash"
        # Ten sessions a host: few sessions with many requests each would only show how the bound spreads them.
        self.sessions = [
            Ask(session=b"%d" % rng.randrange(10**9)) for _ in range(10 * hosts if self.hashed else 1)
        ]
        self.asked = 0
        depth = {"capped": 7.9 if routing != "consistent_hash" else 6.0}.get(case, 2.0)
        self.held: deque[Claim] = deque()
        for _ in range(int(hosts * depth)):
            claim = self.claim()
            if claim is not None:
                self.held.append(claim)
        order = list(self.held)
        rng.shuffle(order)
        self.held = deque(order)

    def claim(self) -> Claim | None:
        return self.pool.claim("m", self.now, self.tried, self.asks(1)[0])

    def asks(self, times: int) -> list[Ask | None]:
        """What the next requests ask for."""
        if not self.hashed:
            return [None] * times
        self.asked += times
        return [self.sessions[i % len(self.sessions)] for i in range(self.asked - times, self.asked)]

    def request(self, times: int) -> float:
        """Seconds for so many requests: one ends, one comes."""
        pool, held, tried = self.pool, self.held, self.tried
        asks = self.asks(times)
        began = time.thread_time()
        for ask in asks:
            self.now = now = self.now + 0.0001
            claim = held.popleft()
            pool.settle(claim, "completed", 10.0, now)
            next_claim = pool.claim("m", now, tried, ask)
            if next_claim is None:
                raise AssertionError("no host has room")
            held.append(next_claim)
        took = time.thread_time() - began
        pool.latency()
        return took

    def place(self, times: int) -> tuple[float, float]:
        """Seconds for so many picks alone, and with the in-flight count and touch; then all is as it was."""
        picker, tried, now = self.pool._picker, self.tried, self.now
        asks = self.asks(times)
        room = min(times, len(self.pool.members) // 16 or 1)
        began = time.thread_time()
        for ask in asks:
            picker.pick("m", now, tried, ask)
        alone = time.thread_time() - began
        both = 0.0
        for start in range(0, times, room):
            taken = []
            began = time.thread_time()
            for ask in asks[start : start + room]:
                member = picker.pick("m", now, tried, ask)
                if member is not None:
                    member.in_flight += 1
                    member.changed()
                    taken.append(member)
            both += time.thread_time() - began
            for member in taken:
                member.in_flight -= 1
                member.changed()
        return alone, both


def measure(
    sizes: tuple[int, ...],
    *,
    quick: bool,
    cases: tuple[str, ...] = CASES,
    routings: tuple[Routing, ...] = ALL,
) -> list[dict[str, object]]:
    """Rows {case, routing, hosts, pick, place, request} in microseconds."""
    rounds, times = (3, 1_000) if quick else (7, 4_000)
    rows: list[dict[str, object]] = []
    for routing in routings:
        for case in cases:
            kept = [(hosts, Traffic(routing, hosts, case, random.Random(3))) for hosts in sizes]
            found: dict[int, list[tuple[float, float, float]]] = {hosts: [] for hosts in sizes}
            gc.collect()
            gc.freeze()
            for _ in range(rounds):
                for hosts, traffic in kept:
                    one = traffic.request(times)
                    alone, both = traffic.place(times)
                    found[hosts].append((alone / times * 1e6, both / times * 1e6, one / times * 1e6))
            gc.unfreeze()
            for hosts in sizes:
                pick, place, request = (statistics.median(x) for x in zip(*found[hosts], strict=True))
                rows.append(
                    {"case": case, "routing": routing, "hosts": hosts}
                    | {"pick": pick, "place": place, "request": request}
                )
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """The rows as a table on stdout."""
    print(f"{'routing':18} {'case':8} {'hosts':>6} {'pick':>7} {'place':>7} {'request':>8}   microseconds")
    for row in rows:
        print(
            f"{row['routing']:18} {row['case']:8} {row['hosts']:6} {row['pick']:7.2f} {row['place']:7.2f} "
            f"{row['request']:8.2f}"
        )


if __name__ == "__main__":
    show(measure((100, 1_000, 10_000), quick=False))
