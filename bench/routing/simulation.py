"""A fleet of unequal hosts behind a real Pool: discrete events, one seed, no sleeping.

Nine hosts: three of speed 1, 2 and 4. Requests come as a Poisson stream, their sizes are heavy-tailed (bounded
Pareto). A fifth of them is for one of two large models, which take 3 GiB each where they are first used; one of the
fastest hosts has 4 GiB free and can hold only one of the two, the others 8 GiB. Hosts report their memory once a
second, a report is half a second old when it arrives. A large model that meets too little memory is an out-of-memory
placement; the request fails at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from bench.routing.hosts import KINDS
from bench.routing.traffic import MEAN_S, NEED, NEEDY, SPEEDS, TOTAL, WARM_S, requests, used_at_first

from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member, MemoryReport
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_wire.balancer import Backend, ModelNeed, PoolConfig, Routing
from fleet_wire.refusal import Refusal

REPORT_S, REPORT_AGE_S = 1.0, 0.5


@dataclass(frozen=True)
class Outcome:
    """`latencies` in milliseconds, sorted; `seconds` measured; `oom`: out-of-memory placements; `failed`: those, and
    requests refused."""

    latencies: list[float]
    seconds: float
    oom: int
    failed: int

    @property
    def p50(self) -> float:
        return self.latencies[len(self.latencies) // 2]

    @property
    def p99(self) -> float:
        return self.latencies[int(len(self.latencies) * 0.99)]

    @property
    def throughput(self) -> float:
        return len(self.latencies) / self.seconds


def together(runs: list[Outcome]) -> Outcome:
    """Several runs as one: a tail needs many requests."""
    latencies = sorted(ms for run in runs for ms in run.latencies)
    return Outcome(
        latencies, sum(r.seconds for r in runs), sum(r.oom for r in runs), sum(r.failed for r in runs)
    )


def simulate(
    routing: Routing, kind: str, load: float, seconds: float, seed: int, *, needs: bool = True
) -> Outcome:
    """One run at `load` (share of the fleet's capacity). `needs`: the pool knows what models need."""
    rng = random.Random(seed)
    models = [
        ModelNeed(name=name, device_memory_bytes=NEED if needs and name in NEEDY else None)
        for name in ("small", *NEEDY)
    ]
    stale_s = 3 * REPORT_S
    pool = Pool(PoolConfig(routing=routing, models=models, queue_size=100_000), random.Random(seed), stale_s)
    members = []
    for i, speed in enumerate(SPEEDS):
        member = Member(Backend(name=f"h{i}", address=f"h{i}:1", capacity_rps=speed / MEAN_S), HealthRule())
        member.health.passed()
        members.append(member)
    pool.replace(members)
    number = {member: i for i, member in enumerate(members)}
    hosts = [KINDS[kind](speed) for speed in SPEEDS]
    used = [used_at_first(i) for i in range(len(SPEEDS))]
    held: list[dict[str, int]] = [{} for _ in SPEEDS]

    stream = list(requests(load, seconds, seed))
    claims: dict[int, Claim] = {}
    latencies: list[float] = []
    oom = failed = 0
    # (time, order, what, number): an arrival, a host that may have finished, a report that was taken or comes in.
    events: list[tuple[float, int, str, int]] = [(stream[0].at, 0, "arrive", 0)]
    order = 1
    reports: dict[int, MemoryReport] = {}
    for i in range(len(hosts)):
        pool.reported(members[i], MemoryReport(0.0, used[i], TOTAL, {}))
        events.append((rng.random() * REPORT_S, order, "snapshot", i))
        order += 1
    heapify(events)
    planned = [float("inf")] * len(hosts)

    def place(request: int, claim: Claim, now: float) -> None:
        nonlocal oom, failed, order
        i = number[claim.member]
        model = stream[request].model
        if model in NEEDY and model not in held[i]:
            if used[i] + NEED > TOTAL:
                oom += 1
                failed += 1
                pool.settle(claim, "excused", 0.0, now)
                return
            used[i] += NEED
            held[i][model] = NEED
        claims[request] = claim
        hosts[i].arrive(now, request, stream[request].size)
        plan(i)

    def plan(i: int) -> None:
        nonlocal order
        if hosts[i].ends != planned[i]:
            planned[i] = hosts[i].ends
            heappush(events, (planned[i], order, "finish", i))
            order += 1

    def serve(now: float) -> None:
        nonlocal failed
        if not pool.waiting:
            return
        for ticket, result in pool.serve_waiting(now):
            if isinstance(result, Refusal):
                failed += 1
            elif isinstance(ticket.owner, int):
                place(ticket.owner, result, now)

    now = ended = 0.0
    while events:
        now, _, what, i = heappop(events)
        if what == "arrive":
            pool.arrivals += 1
            model = stream[i].model
            claim = pool.claim(model, now)
            if claim is None:
                pool.wait(Ticket(i, model, now + 30.0), now)
            else:
                place(i, claim, now)
            if i + 1 < len(stream):
                heappush(events, (stream[i + 1].at, order, "arrive", i + 1))
                order += 1
        elif what == "finish":
            if hosts[i].ends > now + 1e-12:
                continue
            for request in hosts[i].finish(now):
                ended = now
                latency = (now - stream[request].at) * 1000.0
                if stream[request].at >= WARM_S:
                    latencies.append(latency)
                pool.settle(claims.pop(request), "completed", latency, now)
            planned[i] = float("inf")
            plan(i)
            serve(now)
        elif what == "snapshot":
            reports[i] = MemoryReport(now + REPORT_AGE_S, used[i], TOTAL, dict(held[i]))
            heappush(events, (now + REPORT_AGE_S, order, "report", i))
            order += 1
            if now < seconds:
                heappush(events, (now + REPORT_S, order, "snapshot", i))
                order += 1
        else:
            pool.reported(members[i], reports[i])
            serve(now)
    latencies.sort()
    return Outcome(latencies, ended - WARM_S, oom, failed)
