"""A fleet of unequal hosts behind a real Pool: discrete events, one seed, no sleeping.

Nine hosts: three of speed 1, 2 and 4. Requests come as a Poisson stream, their sizes are heavy-tailed (bounded Pareto).
A fifth of them is for one of two large models, which take 3 GiB each where they are first used; one of the fastest hosts
has 2 GiB free and can hold neither, the others 5 GiB and can hold one of the two. Hosts report their memory once a
second, a report is half a second old when it arrives. A large model that meets too little memory is an out-of-memory
placement; the request fails at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from bench.routing.hosts import KINDS

from fleet_balancer.health import HealthRule
from fleet_balancer.member import Member, MemoryReport
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_wire.balancer import Backend, ModelNeed, PoolConfig, Routing
from fleet_wire.refusal import Refusal

GIB = 1 << 30
SPEEDS = (1, 1, 1, 2, 2, 2, 4, 4, 4)
SHORT = 8  # this host has little memory
TOTAL, NEED = 16 * GIB, 3 * GIB
MEAN_S = 0.02
WARM_S = 5.0  # what comes before is served and not measured: the pool meets its hosts for the first time
SHAPE, SPREAD = 1.3, 200.0
REPORT_S, REPORT_AGE_S = 1.0, 0.5


@dataclass(frozen=True)
class Outcome:
    """Milliseconds, requests/s; `oom`: out-of-memory placements; `failed`: those, and requests refused."""

    p50: float
    p99: float
    throughput: float
    oom: int
    failed: int


def simulate(
    routing: Routing, kind: str, load: float, requests: int, seed: int, *, needs: bool = True
) -> Outcome:
    """One run at `load` (share of the fleet's capacity). `needs`: the pool knows what models need."""
    rng = random.Random(seed)
    models = [
        ModelNeed(name=name, device_memory_bytes=NEED if needs and name != "small" else None)
        for name in ("small", "large-a", "large-b")
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
    used = [TOTAL - (2 if i == SHORT else 5) * GIB for i in range(len(SPEEDS))]
    held: list[dict[str, int]] = [{} for _ in SPEEDS]

    mean = _mean_size()
    rate = load * sum(SPEEDS) / MEAN_S
    claims: dict[int, Claim] = {}
    arrived: list[float] = []
    model_of: list[str] = []
    size_of: list[float] = []
    latencies: list[float] = []
    oom = failed = 0
    # (time, order, what, number): an arrival, a host that may have finished, a report that was taken or comes in.
    events: list[tuple[float, int, str, int]] = [(0.0, 0, "arrive", 0)]
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
        model = model_of[request]
        if model != "small" and model not in held[i]:
            if used[i] + NEED > TOTAL:
                oom += 1
                failed += 1
                pool.settle(claim, "excused", 0.0, now)
                return
            used[i] += NEED
            held[i][model] = NEED
        claims[request] = claim
        hosts[i].arrive(now, request, size_of[request])
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
            size = _size(rng) / mean * MEAN_S
            draw = rng.random()
            model = "large-a" if draw < 0.1 else "large-b" if draw < 0.2 else "small"
            arrived.append(now)
            size_of.append(size)
            model_of.append(model)
            pool.arrivals += 1
            claim = pool.claim(model, now)
            if claim is None:
                pool.wait(Ticket(i, model, now + 30.0), now)
            else:
                place(i, claim, now)
            if i + 1 < requests:
                heappush(events, (now + rng.expovariate(rate), order, "arrive", i + 1))
                order += 1
        elif what == "finish":
            if hosts[i].ends > now + 1e-12:
                continue
            for request in hosts[i].finish(now):
                ended = now
                latency = (now - arrived[request]) * 1000.0
                if arrived[request] >= WARM_S:
                    latencies.append(latency)
                pool.settle(claims.pop(request), "completed", latency, now)
            planned[i] = float("inf")
            plan(i)
            serve(now)
        elif what == "snapshot":
            reports[i] = MemoryReport(now + REPORT_AGE_S, used[i], TOTAL, dict(held[i]))
            heappush(events, (now + REPORT_AGE_S, order, "report", i))
            order += 1
            if len(arrived) < requests:
                heappush(events, (now + REPORT_S, order, "snapshot", i))
                order += 1
        else:
            pool.reported(members[i], reports[i])
            serve(now)
    latencies.sort()
    return Outcome(
        latencies[len(latencies) // 2],
        latencies[int(len(latencies) * 0.99)],
        len(latencies) / (ended - WARM_S),
        oom,
        failed,
    )


def _size(rng: random.Random) -> float:
    """Bounded Pareto from 1 to SPREAD."""
    top = 1.0 - SPREAD**-SHAPE
    return float((1.0 - rng.random() * top) ** (-1.0 / SHAPE))


def _mean_size() -> float:
    top = 1.0 - SPREAD**-SHAPE
    return SHAPE / (SHAPE - 1.0) * (1.0 - SPREAD ** (1.0 - SHAPE)) / top
