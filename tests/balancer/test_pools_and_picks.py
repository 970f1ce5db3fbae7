"""Pools, picking, health and routes without I/O: tables, and hypothesis for what must hold whatever happens."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.front import Front
from fleet_balancer.member.health import Health, HealthRule
from fleet_balancer.member.member import Member, MemoryReport
from fleet_balancer.pick.report import scarcity
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_wire.balancer import Backend, BackendList, ModelNeed, PoolConfig, Routing
from fleet_wire.refusal import Refusal

GIB = 1 << 30
STALE_S = 3.0


def members_of(*weights: float) -> list[Member]:
    made = []
    for i, weight in enumerate(weights):
        member = Member(Backend(name=f"h{i}", address=f"h{i}:1", weight=weight), HealthRule())
        member.health.passed()
        made.append(member)
    return made


def pool_of(routing: Routing, *weights: float, **config: Any) -> Pool:
    pool = Pool(PoolConfig(routing=routing, **config), random.Random(7), STALE_S)
    pool.replace(members_of(*weights))
    return pool


def claimed(pool: Pool, times: int) -> Counter[str]:
    """How many of `times` requests, none finished, go to each host."""
    found: Counter[str] = Counter()
    for _ in range(times):
        claim = pool.claim(None, 0.0)
        assert claim is not None
        found[claim.member.name] += 1
    return found


@pytest.mark.parametrize("routing", ["least_connections", "gpu_memory", "round_robin"])
def test_equal_hosts_share_equally(routing: Routing) -> None:
    assert claimed(pool_of(routing, 1, 1, 1), 30) == {"h0": 10, "h1": 10, "h2": 10}


@pytest.mark.parametrize("routing", ["least_connections", "gpu_memory", "round_robin"])
def test_a_host_of_twice_the_weight_gets_twice_as_much(routing: Routing) -> None:
    assert claimed(pool_of(routing, 1, 2), 30) == {"h0": 10, "h1": 20}


@pytest.mark.parametrize("routing", get_args(Routing))
def test_one_request_at_a_time_visits_every_host(routing: Routing) -> None:
    """Equal scores take turns: no host is warm while the others never see a request."""
    pool = pool_of(routing, 1, 1, 1)
    seen: Counter[str] = Counter()
    for _ in range(60):
        claim = pool.claim(None, 0.0)
        assert claim is not None
        seen[claim.member.name] += 1
        pool.settle(claim, "completed", 1.0)
    assert all(seen[f"h{i}"] >= 10 for i in range(3))


def test_power_of_two_stays_even() -> None:
    counts = claimed(pool_of("power_of_two", *[1.0] * 10), 1000)
    assert max(counts.values()) - min(counts.values()) <= 6


def test_round_robin_does_not_flood_a_host_that_comes_back() -> None:
    pool = pool_of("round_robin", 1, 1)
    away = pool.members[1]
    away.health.connect_failed("gone")
    pool.refresh()
    claimed(pool, 100)
    away.health.passed()
    pool.refresh()
    back = claimed(pool, 10)
    assert abs(back["h0"] - back["h1"]) <= 1


def test_scarce_memory_counts_as_load_and_unknown_memory_does_not() -> None:
    one = pool_of("gpu_memory", 1)
    member = one.members[0]
    assert scarcity(member, STALE_S) == 1.0
    for used, expected in ((0, 1.0), (6, 1.0), (7, 2.5), (8, 4.0), (9, 4.0)):
        one.reported(member, MemoryReport(0.0, used * GIB, 8 * GIB))
        assert scarcity(member, STALE_S) == expected
    pool = pool_of("gpu_memory", 1, 1)
    pool.reported(pool.members[0], MemoryReport(0.0, 8 * GIB, 8 * GIB))
    assert claimed(pool, 10) == {"h0": 2, "h1": 8}


needy = {"models": [ModelNeed(name="big", device_memory_bytes=4 * GIB), ModelNeed(name="small")]}


@pytest.mark.parametrize("routing", get_args(Routing))
@pytest.mark.parametrize(
    ("report", "gets"),
    [
        (None, True),
        (MemoryReport(10.0), True),
        (MemoryReport(10.0, 4 * GIB, 8 * GIB), True),
        (MemoryReport(10.0, 4 * GIB + 1, 8 * GIB), False),
        (MemoryReport(10.0, 8 * GIB, 8 * GIB, {"big": 4 * GIB}), True),
        (MemoryReport(10.0, 8 * GIB, 8 * GIB, {"small": 4 * GIB}), False),
        (MemoryReport(6.9, 8 * GIB, 8 * GIB), True),  # older than 3 s: ignored
    ],
)
def test_in_every_routing_a_host_without_room_gets_nothing(
    routing: Routing, report: MemoryReport | None, gets: bool
) -> None:
    pool = pool_of(routing, 1, **needy)
    if report is not None:
        pool.reported(pool.members[0], report)
    assert (pool.claim("big", 10.0) is not None) is gets
    assert pool.claim("small", 10.0) is not None
    assert pool.claim(None, 10.0) is not None


def test_who_waits_is_served_first_come_first_served_until_the_deadline() -> None:
    pool = pool_of("least_connections", queue_size=3)
    tickets = [Ticket(i, None, 5.0 + i) for i in range(3)]
    for ticket in tickets:
        assert pool.claim(None, 0.0) is None
        pool.arrivals += 1
        pool.wait(ticket)
    with pytest.raises(Refusal) as refused:
        pool.wait(Ticket(3, None, 9.0))
    assert (refused.value.status, refused.value.retry_after_s is not None) == (503, True)
    assert pool.serve_waiting(4.9) == []
    ((late, answer),) = pool.serve_waiting(5.0)
    assert late is tickets[0]
    assert isinstance(answer, Refusal)
    pool.replace(members_of(1))
    served = pool.serve_waiting(5.5)
    assert [t for t, _ in served] == tickets[1:]
    assert all(isinstance(c, Claim) for _, c in served)


def test_a_claim_is_given_back_once() -> None:
    pool = pool_of("least_connections", 1)
    claim = pool.claim(None, 0.0)
    assert claim is not None
    assert repr(claim) == "<Claim default on h0>"
    pool.settle(claim, "completed", 3.0)
    with pytest.raises(RuntimeError, match="given back twice"):
        pool.settle(claim, "error")
    assert (pool.in_flight, pool.members[0].in_flight, pool.completed) == (0, 0, 1)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 3)),
        st.tuples(st.just("finish"), st.integers(0, 50)),
        st.tuples(st.just("fail"), st.integers(0, 3)),
        st.tuples(st.just("pass"), st.integers(0, 3)),
        st.tuples(st.just("drain"), st.integers(0, 3)),
        st.tuples(st.just("full"), st.integers(0, 3)),
        st.tuples(st.just("swap"), st.integers(0, 15)),
        st.tuples(st.just("wait"), st.integers(1, 9)),
    ),
    max_size=60,
)


@given(st.sampled_from(get_args(Routing)), actions)
def test_whatever_happens_the_counts_add_up(routing: Routing, steps: list[tuple[str, int]]) -> None:
    front = Front(random.Random(3), HealthRule(), STALE_S)
    specs = [Backend(name=f"h{i}", address=f"h{i}:1") for i in range(4)]
    config = PoolConfig(routing=routing, queue_size=5, queue_timeout_s=4, models=needy["models"])
    front.swap(BackendList(pools=[config], backends=specs), 0.0)
    everyone = {m.name: m for m in front.members}
    for member in front.members:
        member.health.passed()
    pool = front.pools["default"]
    pool.refresh()
    now = 0.0
    open_claims: list[Claim] = []

    def take(served: list[tuple[Ticket, Any]]) -> None:
        open_claims.extend(result for _, result in served if isinstance(result, Claim))

    for what, n in steps:
        member = everyone.get(f"h{n % 4}")
        if what == "arrive":
            pool.arrivals += 1
            model = "big" if n % 2 else None
            claim = pool.claim(model, now)
            if claim is not None:
                chosen = claim.member
                assert chosen.usable and chosen in front.members
                assert model is None or not chosen.lacks("big", 4 * GIB, now, STALE_S)
                if routing in ("least_connections",) and model is None:
                    assert chosen.in_flight - 1 == min(
                        m.in_flight - (m is chosen) for m in pool.members if m.usable
                    )
                open_claims.append(claim)
            else:
                try:
                    pool.wait(Ticket(None, model, now + 4))
                except Refusal:
                    pass
        elif what == "finish" and open_claims:
            outcome = ("completed", "error", "refused", "abandoned")[n % 4]
            pool.settle(open_claims.pop(n % len(open_claims)), outcome, 1.0)  # type: ignore[arg-type]
        elif what in ("fail", "pass", "drain", "full") and member is not None:
            if what == "fail":
                member.health.connect_failed("gone")
            elif what == "pass":
                member.health.passed()
            elif what == "drain":
                member.draining = not member.draining
            else:
                pool.reported(member, MemoryReport(now, 8 * GIB, 8 * GIB))
            take(front.refresh(member, now))
        elif what == "swap":
            kept = [spec for i, spec in enumerate(specs) if n >> i & 1]
            swap = front.swap(BackendList(pools=[config], backends=kept), now)
            for new in swap.added:
                everyone[new.name] = new
                new.health.passed()
            pool.refresh()
            take(list(swap.served))
        else:
            now += n
            take(pool.serve_waiting(now))
        assert pool is front.pools["default"]
        assert pool.in_flight == len(open_claims)
        counted = pool.completed + pool.errors + pool.refused + pool.abandoned
        assert pool.arrivals == counted + pool.in_flight + len(pool.waiting)
        in_flight = Counter(claim.member for claim in open_claims)
        assert all(m.in_flight == in_flight[m] for m in front.members)
    assert pool.latency().count == pool.completed


@pytest.mark.parametrize("routing", get_args(Routing))
def test_the_heap_of_scores_stays_bounded(routing: Routing) -> None:
    pool = pool_of(routing, *[1.0] * 8)
    held = [pool.claim(None, 0.0) for _ in range(800)]
    for i in range(20_000):
        claim = held.pop(0)
        assert claim is not None
        pool.settle(claim, "completed", 1.0, 1.0 + i % 7 + i * 0.01)
        held.append(pool.claim(None, i * 0.01))
    for shelf in pool._picker._shelves.values():
        assert len(shelf.scores) == len(shelf.buckets) <= 64 + 2 * 8 + 1
    assert sum(m.in_flight for m in pool.members) == 800


def test_a_member_that_stays_keeps_its_counts_and_one_at_another_address_starts_anew() -> None:
    front = Front(random.Random(1), HealthRule(), STALE_S)
    pools = [PoolConfig()]
    front.swap(BackendList(pools=pools, backends=[Backend(name="a", address="h:1")]), 0.0)
    old = front.members[0]
    old.health.passed()
    front.pools["default"].refresh()
    claim = front.pools["default"].claim(None, 0.0)
    assert claim is not None
    drained = front.swap(
        BackendList(pools=pools, backends=[Backend(name="a", address="h:1", state="draining")]), 0.0
    )
    assert (drained.added, drained.removed) == ([], [])
    assert front.members[0] is old
    assert (old.in_flight, old.draining, old.health.healthy) == (1, True, True)
    assert front.pools["default"].claim(None, 0.0) is None
    moved = front.swap(BackendList(pools=pools, backends=[Backend(name="a", address="h:2")]), 0.0)
    assert (len(moved.added), moved.removed) == (1, [old])
    assert front.members[0].in_flight == 0
    front.pools["default"].settle(claim, "completed", 1.0)
    assert old.in_flight == 0


@pytest.mark.parametrize("routing", get_args(Routing))
def test_a_host_that_changes_pools_with_requests_in_flight_is_picked_only_in_its_new_pool(
    routing: Routing,
) -> None:
    front = Front(random.Random(1), HealthRule(), STALE_S)
    pools = [PoolConfig(name="one", routing=routing), PoolConfig(name="two", routing=routing)]
    front.swap(BackendList(pools=pools, backends=[Backend(name="a", address="h:1", pool="one")]), 0.0)
    front.members[0].health.passed()
    one, two = front.pools["one"], front.pools["two"]
    one.refresh()
    claims = [one.claim(None, 0.0) for _ in range(3)]
    front.swap(BackendList(pools=pools, backends=[Backend(name="a", address="h:1", pool="two")]), 0.0)
    for claim in claims:
        assert claim is not None
        one.settle(claim, "completed", 1.0)
        assert one.claim(None, 0.0) is None
        moved = two.claim(None, 0.0)
        assert moved is not None
        two.settle(moved, "completed", 1.0)
    assert (one.in_flight, two.in_flight, front.members[0].in_flight) == (0, 0, 0)


def test_when_a_pool_is_removed_those_who_wait_are_told() -> None:
    front = Front(random.Random(1), HealthRule(), STALE_S)
    pool = front.pools["default"]
    pool.arrivals += 1
    pool.wait(Ticket("me", None, 9.0))
    swap = front.swap(BackendList(pools=[PoolConfig(name="other")], backends=[]), 0.0)
    ((ticket, answer),) = swap.served
    assert ticket.owner == "me"
    assert isinstance(answer, Refusal)
    assert "pool default was removed" in answer.message


@pytest.mark.parametrize(
    ("events", "healthy"),
    [
        ("", False),
        ("+", True),
        ("+-", True),
        ("+--", False),
        ("+-+-", True),
        ("+!", False),
        ("+!+", True),
        ("+--+", True),
        ("--", False),
    ],
)
def test_health(events: str, healthy: bool) -> None:
    """+ a probe passed, - a probe failed, ! a connect failed; rise 1, fall 2."""
    health = Health(HealthRule())
    changes = 0
    for event in events:
        match event:
            case "+":
                changes += health.passed()
            case "-":
                changes += health.failed("no answer")
            case _:
                changes += health.connect_failed("refused")
    assert health.healthy is healthy
    assert changes % 2 == int(healthy)
    assert (health.error is None) is (events[-1:] == "+")


def test_a_slower_rise_wants_several_passes_in_a_row() -> None:
    health = Health(HealthRule(rise=2))
    assert [health.passed(), health.failed("x"), health.passed(), health.passed()] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("target", "model"),
    [
        (b"/v1/models/m1:predict", "m1"),
        (b"/v1/models/m1", "m1"),
        (b"/v1/models/m1?x=1", "m1"),
        (b"/v2/models/m1/infer", "m1"),
        (b"/v2/models/m1/versions/3/infer", "m1"),
        (b"/v1/models", None),
        (b"/v2", None),
        (b"/", None),
    ],
)
def test_the_path_names_the_model(target: bytes, model: str | None) -> None:
    front = Front(random.Random(1), HealthRule(), STALE_S)
    front.swap(BackendList(pools=[PoolConfig(models=[ModelNeed(name="m1")])], backends=[]), 0.0)
    for _ in range(2):  # the second time from the table
        route = front.route(target, None)
        assert (route.pool, route.model) == (front.pools["default"], model)
    assert front.route(b"/anything", b"m1").model == "m1"
    with pytest.raises(Refusal, match="models served: m1"):
        front.route(target, b"nix")
