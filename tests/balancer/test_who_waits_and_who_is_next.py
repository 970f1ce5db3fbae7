"""Waiting for a host: priorities, fair shares of tenants, places in a full queue, deadlines. No I/O, no clock."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet_balancer.ask import PRIORITIES, Ask, priority_of
from fleet_balancer.front import Front
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_balancer.waiting.drain import LATEST_S, DrainRate, retry_after_s
from fleet_balancer.waiting.figures import OTHER, TENANTS
from fleet_balancer.waiting.queue import TURN, Queue
from fleet_wire.balancer import Backend, BackendList, ModelNeed, PoolConfig
from fleet_wire.refusal import Refusal


def hosts(count: int, **spec: Any) -> list[Member]:
    made = []
    for i in range(count):
        member = Member(Backend(name=f"h{i}", address=f"h{i}:1", **spec), HealthRule())
        member.health.passed()
        made.append(member)
    return made


def pool_of(count: int, **config: Any) -> Pool:
    pool = Pool(PoolConfig(slow_start_s=0, **config), random.Random(7), 3.0)
    pool.replace(hosts(count))
    return pool


def asking(tenant: str | None = None, priority: int = 0, share: float = 1.0) -> Ask:
    return Ask(tenant, priority, share=share)


def waiting(pool: Pool, owner: object, ask: Ask | None = None, now: float = 0.0, **more: Any) -> Ticket:
    """A request that must wait, and does."""
    pool.arrivals += 1
    assert pool.claim(more.get("model"), now, (), ask) is None
    ticket = Ticket(owner, more.get("model"), more.get("deadline", now + 1000.0), ask)
    assert pool.wait(ticket, now) == []
    return ticket


def full_pool(**config: Any) -> tuple[Pool, Claim]:
    """A pool whose only place is taken."""
    pool = pool_of(1, **{"max_in_flight_per_server": 1, **config})
    pool.arrivals += 1
    claim = pool.claim(None, 0.0)
    assert claim is not None
    return pool, claim


def served_one_by_one(pool: Pool, claim: Claim, now: float = 0.0) -> list[Any]:
    """The owners of those who wait, in the order in which they get the one place."""
    owners = []
    while pool.waiting:
        pool.settle(claim, "completed", 1.0, now)
        ((ticket, result),) = pool.freed(claim.member, now)
        assert isinstance(result, Claim)
        claim = result
        owners.append(ticket.owner)
    return owners


# Order.


def test_first_come_first_served_within_a_tenant() -> None:
    pool, claim = full_pool()
    for i in range(5):
        waiting(pool, i)
    assert served_one_by_one(pool, claim) == [0, 1, 2, 3, 4]


def test_tenants_take_turns_whoever_came_first() -> None:
    pool, claim = full_pool()
    for name in "aaaabbcc":
        waiting(pool, name, asking(name))
    assert "".join(served_one_by_one(pool, claim)) == "abcabcaa"


def test_a_tenant_of_twice_the_share_is_served_twice_as_often() -> None:
    pool, claim = full_pool()
    for _ in range(30):
        waiting(pool, "a", asking("a", share=2.0))
        waiting(pool, "b", asking("b"))
    assert Counter(served_one_by_one(pool, claim)[:30]) == {"a": 20, "b": 10}


def test_who_gave_up_waiting_has_paid_nothing() -> None:
    pool, claim = full_pool()
    gone = [waiting(pool, "a", asking("a")) for _ in range(50)]
    for ticket in gone:
        pool.leave(ticket)
    for name in "bbaa":
        waiting(pool, name, asking(name))
    assert "".join(served_one_by_one(pool, claim)) == "baba"
    assert pool.abandoned == 50


def test_a_tenant_that_was_served_does_not_come_first_again_because_it_asks_anew() -> None:
    """One request at a time must not beat a tenant that has many waiting."""
    pool, claim = full_pool()
    for _ in range(40):
        waiting(pool, "many", asking("many"))
    order = []
    for name in "bc":
        waiting(pool, name, asking(name))
    for _ in range(30):
        pool.settle(claim, "completed", 1.0, 0.0)
        ((ticket, result),) = pool.freed(claim.member, 0.0)
        assert isinstance(result, Claim)
        claim = result
        order.append(ticket.owner)
        if ticket.owner != "many":
            waiting(pool, ticket.owner, asking(str(ticket.owner)))
    assert Counter(order) == {"many": 10, "b": 10, "c": 10}


def test_a_tenant_that_comes_back_has_no_claim_to_what_it_missed() -> None:
    pool, claim = full_pool()
    for name in "baaaaaaaa":
        waiting(pool, name, asking(name))
    order = ""
    for _ in range(5):
        pool.settle(claim, "completed", 1.0, 0.0)
        ((ticket, result),) = pool.freed(claim.member, 0.0)
        assert isinstance(result, Claim)
        claim = result
        order += str(ticket.owner)
    for name in "cbbb":
        waiting(pool, name, asking(name))
    assert order + "".join(served_one_by_one(pool, claim)) == "baaaa" + "cbababaa"


def test_the_higher_priority_is_served_first_and_the_lower_one_in_ten_times() -> None:
    pool, claim = full_pool()
    for _ in range(3):
        waiting(pool, "low", asking(priority=2))
    for _ in range(40):
        waiting(pool, "high", asking(priority=7))
    order = served_one_by_one(pool, claim)
    assert [i for i, owner in enumerate(order) if owner == "low"] == [9, 19, 29]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.randoms(use_true_random=False))
def test_nobody_starves(priorities: list[int], rng: random.Random) -> None:
    """While higher ones never end, each lower priority is served once in TURN x (their number)."""
    queue = Queue()
    for priority in priorities:
        queue.push(Ticket(None, None, 1e9, asking(rng.choice("abc"), priority)), None, 0.0)
    lower = set(priorities) - {9}
    seen = dict.fromkeys(lower, 0)
    for step in range(1, 400):
        queue.push(Ticket(None, None, 1e9, asking("flood", 9)), None, 0.0)
        ticket = queue.next()
        assert ticket is not None
        queue.take(ticket)
        for priority in list(seen):
            if not queue.waiting_at(priority):
                del seen[priority]
            else:
                assert step - seen[priority] <= TURN * len(lower)
        if ticket.priority in seen:
            seen[ticket.priority] = step
    assert len(queue.tickets) == sum(queue.waiting_at(p) for p in PRIORITIES)


def test_a_model_that_no_host_can_take_does_not_stand_in_the_way() -> None:
    big = ModelNeed(name="big")
    pool = Pool(
        PoolConfig(models=[big, ModelNeed(name="small")], max_in_flight_per_server=1), random.Random(1), 3.0
    )
    pool.replace(hosts(1, models={"small": "1"}))
    first = pool.claim("small", 0.0)
    assert first is not None
    for _ in range(3):
        waiting(pool, "big", model="big")
    waiting(pool, "small", model="small")
    pool.settle(first, "completed", 1.0, 0.0)
    ((ticket, result),) = pool.freed(first.member, 0.0)
    assert (ticket.owner, isinstance(result, Claim)) == ("small", True)
    assert len(pool.waiting) == 3
    pool.replace([*pool.members, *hosts(1, models={"big": "1"})])
    assert [t.owner for t, _ in pool.serve_waiting(0.0)] == ["big"]


def test_a_model_that_becomes_known_no_longer_waits_behind_those_that_are_not() -> None:
    pool = Pool(PoolConfig(), random.Random(1), 3.0)
    pool.replace(hosts(1, models={"small": "1"}))
    waiting(pool, "nobody has it", model="x")
    waiting(pool, "is to come", model="big")
    pool.replace([*pool.members, *hosts(1, models={"big": "1"})])
    assert [t.owner for t, _ in pool.serve_waiting(0.0)] == ["is to come"]


def test_what_is_remembered_of_tenants_that_left_is_bounded() -> None:
    pool, _ = full_pool(queue_size=2000)
    waiting(pool, "stays")
    for i in range(20_000):
        pool.leave(waiting(pool, i, asking(f"t{i}", share=1.0 + i % 3)))
    queue = pool._lobby.queue
    (rank,) = [rank for rank in queue._ranks if rank.waiting]
    (line,) = rank.lines.values()
    held = (rank.tenants, line.heap, line.flows, queue._heaviest, queue._deadlines, queue._held)
    assert max(map(len, held)) < 1200


def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    pool, claim = full_pool()
    waiting(pool, "first", asking(priority=3))
    pool.settle(claim, "completed", 1.0, 0.0)  # a place is free, and not given away yet
    assert pool.claim(None, 0.0) is None
    assert pool.claim(None, 0.0, (), asking(priority=3)) is None
    assert pool.claim(None, 0.0, (), asking(priority=4)) is not None


def test_a_request_that_failed_at_one_host_has_had_its_turn() -> None:
    pool = pool_of(2, max_in_flight_per_server=1)
    claims = [pool.claim(None, 0.0), pool.claim(None, 0.0)]
    waiting(pool, "first")
    one, two = claims
    assert one is not None and two is not None
    pool.settle(one, "retry", 0.0, 0.0)
    pool.settle(two, "completed", 1.0, 0.0)
    assert pool.claim(None, 0.0, {one.member}) is not None


def test_no_host_gets_more_at_once_than_it_may() -> None:
    pool = Pool(PoolConfig(max_in_flight_per_server=3), random.Random(1), 3.0)
    pool.replace([*hosts(1), *hosts(1, max_in_flight=1)])
    taken = [pool.claim(None, 0.0) for _ in range(6)]
    assert [m.in_flight for m in pool.members] == [3, 1]
    assert [c is not None for c in taken] == [True] * 4 + [False] * 2


def test_requests_wait_for_the_first_host_and_go_when_it_comes() -> None:
    pool = pool_of(0)
    for i in range(100):
        waiting(pool, i, deadline=30.0)
    assert pool.serve_waiting(20.0) == []
    pool.replace(hosts(1))
    assert [t.owner for t, r in pool.serve_waiting(20.0) if isinstance(r, Claim)] == list(range(100))


# Places in the queue.


def refused(pool: Pool, ask: Ask | None, now: float = 0.0, deadline: float = 1000.0) -> Refusal:
    pool.arrivals += 1
    assert pool.claim(None, now, (), ask) is None
    with pytest.raises(Refusal) as caught:
        pool.wait(Ticket("late", None, deadline, ask), now)
    return caught.value


def test_a_full_queue_takes_a_place_from_who_has_more_than_its_share_and_gives_it_to_who_has_less() -> None:
    pool, _ = full_pool(queue_size=10)
    flood = [waiting(pool, "flood", asking("flood")) for _ in range(10)]
    greedy = refused(pool, asking("flood"))
    assert (greedy.status, "10 requests wait" in greedy.message) == (503, True)
    pushed = []
    for _ in range(5):
        pool.arrivals += 1
        ((ticket, result),) = pool.wait(Ticket("modest", None, 1000.0, asking("modest")), 0.0)
        assert isinstance(result, Refusal)
        assert (result.status, "another tenant" in result.message) == (429, True)
        pushed.append(ticket)
    assert pushed == flood[:4:-1]  # the youngest first
    # 5 and 5 now: both are told to come back, a third tenant still gets in.
    assert refused(pool, asking("modest")).status == 503
    assert refused(pool, asking("flood")).status == 503
    pool.arrivals += 1
    assert len(pool.wait(Ticket("third", None, 1000.0, asking("third")), 0.0)) == 1
    assert pool.arrivals == pool.refused + pool.in_flight + len(pool.waiting)


def test_a_tenant_that_floods_a_full_queue_is_told_that_it_is_the_one() -> None:
    pool, _ = full_pool(queue_size=10)
    for name in "aaaaaaaabc":
        waiting(pool, name, asking(name))
    assert refused(pool, asking("a")).status == 429


def test_a_full_queue_makes_room_for_a_higher_priority_of_the_same_tenant() -> None:
    pool, _ = full_pool(queue_size=2)
    waiting(pool, "low")
    youngest = waiting(pool, "low too")
    pool.arrivals += 1
    ((ticket, result),) = pool.wait(Ticket("high", None, 1000.0, asking(priority=1)), 0.0)
    assert (ticket, isinstance(result, Refusal)) == (youngest, True)
    assert refused(pool, None).status == 503


def test_the_youngest_gives_way_whatever_its_model() -> None:
    pool, _ = full_pool(queue_size=4, models=[ModelNeed(name="m"), ModelNeed(name="n")])
    tickets = [waiting(pool, i, asking("a"), model=model) for i, model in enumerate("mnnm")]
    for expected in (3, 2):
        ((ticket, _),) = pool.wait(Ticket("b", "n", 1000.0, asking("b")), 0.0)
        assert ticket is tickets[expected]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("aaabcd"), st.integers(0, 9), st.booleans()), max_size=120),
    st.integers(1, 12),
)
def test_a_full_queue_never_turns_away_the_modest(steps: list[tuple[str, int, bool]], size: int) -> None:
    shares = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.5}
    pool, claim = full_pool(queue_size=size)

    def load(name: str) -> float:
        return sum(t.tenant == name for t in pool.waiting) / shares[name]

    for name, priority, free in steps:
        if free and pool.waiting:
            pool.settle(claim, "completed", 1.0, 0.0)
            ((_, result),) = pool.freed(claim.member, 0.0)
            assert isinstance(result, Claim)
            claim = result
        before = {other: load(other) for other in shares}
        ask = asking(name, priority, shares[name])
        try:
            pushed = pool.wait(Ticket(name, None, 1000.0, ask), 0.0)
        except Refusal:
            assert before[name] + 1 / shares[name] >= max(before.values())
        else:
            for ticket, _ in pushed:
                if ticket.tenant == name:
                    assert ticket.priority < priority
                else:
                    assert before[str(ticket.tenant)] == max(before.values()) > load(name)
        assert len(pool.waiting) <= size


# Deadlines and Retry-After.


def learned(
    pool: Pool, claim: Claim, per_s: float, count: int, ask: Ask | None = None
) -> tuple[Claim, float]:
    """Let the pool work off `count` waiting requests at this rate; the time afterwards."""
    now = 0.0
    for i in range(count + 1):
        waiting(pool, i, ask)
    for _ in range(count):
        now += 1.0 / per_s
        pool.settle(claim, "completed", 1.0, now)
        ((_, result),) = pool.freed(claim.member, now)
        assert isinstance(result, Claim)
        claim = result
    return claim, now


def test_a_hopeless_deadline_is_refused_at_once_and_told_when_to_come_back() -> None:
    pool, claim = full_pool()
    claim, now = learned(pool, claim, 10.0, 40)
    for _ in range(200):  # those who give up waiting are not worked off
        pool.leave(waiting(pool, "gone", now=now))
    waiting(pool, "last", now=now)
    now += 0.1
    pool.settle(claim, "completed", 1.0, now)
    assert len(pool.freed(claim.member, now)) == 1
    for i in range(49):
        waiting(pool, i, now=now, deadline=now + 60.0)
    assert len(pool.waiting) == 50
    hopeless = refused(pool, None, now, now + 4.0)
    assert (hopeless.status, hopeless.retry_after_s) == (503, pytest.approx(5.0, rel=0.05))
    assert "50 requests wait already for a host of pool default, about 5 s" in hopeless.message
    waiting(pool, "in time", now=now, deadline=now + 6.0)
    # Another tenant's turn comes after one of theirs, and a higher priority's at once.
    waiting(pool, "modest", asking("modest"), now=now, deadline=now + 0.5)
    waiting(pool, "urgent", asking(priority=5), now=now, deadline=now + 0.1)


def test_the_turns_of_low_priorities_count_for_their_deadlines() -> None:
    """1000 of a higher priority wait, and still it gets the next tenth place."""
    pool, claim = full_pool()
    _, now = learned(pool, claim, 10.0, 40, asking(priority=1))
    for i in range(999):
        waiting(pool, i, asking(priority=1), now=now, deadline=now + 200.0)
    waiting(pool, "low", now=now, deadline=now + 1.1)
    assert refused(pool, None, now, now + 1.1).status == 503


def test_while_nothing_is_learned_nothing_is_hopeless() -> None:
    pool, _ = full_pool(queue_timeout_s=20)
    for i in range(500):
        waiting(pool, i, deadline=0.001)
    empty = pool_of(0, queue_size=1)
    waiting(empty, 0)
    assert refused(empty, None).retry_after_s == 7.5


def test_lost_hosts_make_nothing_hopeless() -> None:
    pool, claim = full_pool()
    _, now = learned(pool, claim, 10.0, 40)
    pool.members[0].health.connect_failed("gone", now)
    pool.refresh()
    for i in range(100):
        waiting(pool, i, now=now, deadline=now + 1.0)


def test_the_wait_ends_at_the_deadline() -> None:
    pool, _ = full_pool()
    late = [waiting(pool, i, deadline=5.0 - i) for i in range(3)]
    assert pool.serve_waiting(2.9) == []
    assert [t for t, _ in pool.serve_waiting(4.0)] == [late[2], late[1]]
    ((ticket, result),) = pool.serve_waiting(5.0)
    assert (ticket, isinstance(result, Refusal)) == (late[0], True)
    assert isinstance(result, Refusal) and "as many requests as they may" in result.message
    assert (pool.refused, len(pool.waiting)) == (3, 0)


def test_a_free_place_does_not_go_to_who_is_too_late() -> None:
    pool, claim = full_pool()
    waiting(pool, "late", deadline=1.0)
    waiting(pool, "in time", deadline=9.0)
    pool.settle(claim, "completed", 1.0, 1.5)
    (late, refusal), (in_time, given_place) = pool.freed(claim.member, 1.5)
    assert (late.owner, in_time.owner) == ("late", "in time")
    assert isinstance(refusal, Refusal) and isinstance(given_place, Claim)


def test_the_rate_is_learned_only_while_somebody_waits() -> None:
    drain = DrainRate()
    assert drain.per_s(0.0) is None
    drain.begin(0.0, 0)
    for i in range(1, 81):
        drain.look(i / 4, 5 * i, True, True)
    assert drain.per_s(20.0) == pytest.approx(20.0)
    drain.look(20.0, 400, False, True)
    drain.look(45.0, 400, False, True)
    drain.begin(50.0, 400)  # 30 s with nobody waiting are no seconds at 0/s
    assert drain.per_s(50.0) == pytest.approx(20.0)
    drain.look(50.5, 400, True, False)  # and so are those without any host
    assert drain.per_s(50.5) == pytest.approx(20.0)
    drain.resized(2, 3)
    assert drain.per_s(50.5) == pytest.approx(30.0)
    for i in range(1, 200):
        drain.look(50.5 + i / 4, 400 + i, True, True)
    assert drain.per_s(100.5) == pytest.approx(4.0, rel=0.1)
    assert drain.per_s(200.0) is None
    drain.resized(3, 0)
    assert drain.per_s(100.5) is None


def test_retry_after_has_bounds() -> None:
    assert [retry_after_s(s) for s in (0.0, 5.5, 1e6)] == [1.0, 5.5, LATEST_S]


@pytest.mark.parametrize(
    ("field", "priority"),
    [(b"0", 0), (b"7", 7), (b" 3 ", 3), (b"-1", 0), (b"99", 9), (b"", 0), (b"high", 0), (b"1.5", 0)],
)
def test_a_priority_is_a_digit(field: bytes, priority: int) -> None:
    assert priority_of(field) == priority


# Three tenants, one flooding.


def simulated(
    demands: dict[str, Any], seconds: float, **config: Any
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """How many asked, completed and were refused, by tenant, on 4 hosts with 2 places each of 100 requests/s in all.

    A demand is a number of connections that ask again as soon as they are answered, or requests per second as a float.
    Service times are heavy-tailed (lognormal, sigma 1).
    """
    rng = random.Random(42)
    pool = pool_of(4, max_in_flight_per_server=2, **config)
    events: list[tuple[float, int, Callable[[float], None]]] = []
    asked: Counter[str] = Counter()
    done: Counter[str] = Counter()
    turned: Counter[str] = Counter()
    number = 0

    def later(at: float, what: Callable[[float], None]) -> None:
        nonlocal number
        number += 1
        heappush(events, (at, number, what))

    def place(claim: Claim, name: str, now: float) -> None:
        took = rng.lognormvariate(0.0, 1.0) / 1.6487 * 0.08

        def finish(at: float) -> None:
            pool.settle(claim, "completed", took * 1000.0, at)
            done[name] += 1
            if pool.waiting:
                deliver(pool.freed(claim.member, at), at)
            if isinstance(demands[name], int):
                ask(name, at)

        later(now + took, finish)

    def deliver(served: list[tuple[Ticket, Claim | Refusal]], now: float) -> None:
        for ticket, result in served:
            if isinstance(result, Claim):
                place(result, str(ticket.owner), now)
            else:
                turn_away(str(ticket.owner), now)

    def turn_away(name: str, now: float) -> None:
        turned[name] += 1
        if isinstance(demands[name], int):
            later(now + 1.0, lambda at: ask(name, at))

    def ask(name: str, now: float) -> None:
        pool.arrivals += 1
        asked[name] += 1
        about = asking(name)
        claim = pool.claim(None, now, (), about)
        if claim is not None:
            place(claim, name, now)
            return
        try:
            deliver(pool.wait(Ticket(name, None, now + 10.0, about), now), now)
        except Refusal:
            turn_away(name, now)

    def arrive(name: str, now: float) -> None:
        ask(name, now)
        later(now + rng.expovariate(demands[name]), lambda at: arrive(name, at))

    for name, demand in demands.items():
        if isinstance(demand, int):
            for _ in range(demand):
                later(0.0, lambda at, name=name: ask(name, at))  # type: ignore[misc]
        else:
            later(0.0, lambda at, name=name: arrive(name, at))  # type: ignore[misc]
    while events and events[0][0] < seconds:
        at, _, what = heappop(events)
        what(at)
        if number % 25 == 0:
            deliver(pool.serve_waiting(at), at)
    counted = pool.completed + pool.refused + pool.errors + pool.abandoned
    assert pool.arrivals == counted + pool.in_flight + len(pool.waiting)
    return asked, done, turned


@pytest.mark.parametrize(
    ("demands", "config"),
    [
        pytest.param({"flood": 300, "b": 24, "c": 24}, {}, id="connections"),
        pytest.param({"flood": 300, "b": 24, "c": 24}, {"queue_size": 64}, id="connections-full-queue"),
        pytest.param({"flood": 900.0, "b": 40.0, "c": 40.0}, {"queue_size": 128}, id="requests-per-second"),
        pytest.param({"flood": 900.0, "b": 25.0, "c": 25.0}, {"queue_size": 128}, id="below-their-share"),
    ],
)
def test_of_three_tenants_one_flooding_the_others_keep_their_fair_share(
    demands: dict[str, Any], config: dict[str, Any]
) -> None:
    seconds = 60.0
    asked, done, turned = simulated(demands, seconds, **config)
    share = sum(done.values()) / 3
    for name in ("b", "c"):
        fair = share if isinstance(demands[name], int) else min(share, asked[name])
        print(f"{name}: {done[name] / seconds:.1f}/s of {fair / seconds:.1f}/s fair, {turned[name]} refused")  # noqa: T201
        assert done[name] >= 0.95 * fair
    print(f"flood: {done['flood'] / seconds:.1f}/s, {turned['flood']} refused")  # noqa: T201
    assert sum(done.values()) > 0.93 * 100 * seconds  # and no capacity is lost to it


def test_a_step_costs_the_same_however_many_wait() -> None:
    """A walk over the list would be a hundred times as long."""

    def seconds(count: int) -> float:
        pool, claim = full_pool(queue_size=count)
        for i in range(count):
            waiting(pool, i, asking(f"t{i % 97}", i % 3))
        begun = time.process_time()
        for _ in range(1000):
            pool.settle(claim, "completed", 1.0, 0.0)
            ((ticket, result),) = pool.freed(claim.member, 0.0)
            assert isinstance(result, Claim)
            claim = result
            pool.wait(Ticket(None, None, 1000.0, ticket.ask), 0.0)
        return time.process_time() - begun

    few = min(seconds(200) for _ in range(3))
    many = min(seconds(20_000) for _ in range(3))
    print(f"{few * 1000:.1f} us a step with 200 waiting, {many * 1000:.1f} us with 20,000")  # noqa: T201
    assert many < 6 * few


# Figures.


def test_tenants_and_priorities_have_figures_and_only_so_many() -> None:
    pool, claim = full_pool()
    for i in range(TENANTS + 20):
        waiting(pool, i, asking(f"t{i}", priority=4))
    served_one_by_one(pool, claim, now=2.0)
    waiting(pool, "new", asking("t0", priority=4))
    waiting(pool, "new", asking("new"))
    rows = {(f.name, *f.labels.values()): f.value for f in pool.figures()}
    tenants = {labels[1] for name, *labels in rows if name == "tenant_placed"}
    assert (len(tenants), OTHER in tenants) == (TENANTS + 1, True)
    assert rows["tenant_placed", "default", "t3"] == 1
    assert rows["tenant_waited_seconds", "default", "t3"] == 2.0
    assert rows["tenant_placed", "default", OTHER] == 20
    assert rows["tenant_queued", "default", "t0"] == 1
    assert rows["tenant_queued", "default", OTHER] == 1
    assert rows["priority_waited", "default", "4"] == TENANTS + 20
    assert rows["priority_queued", "default", "0"] == 1


# Everything at once.


class WhateverHappens(RuleBasedStateMachine):
    """Claims, hedges, retries, waiting, overflow, deadlines, lost hosts, swaps: the counts add up at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.front = Front(random.Random(3), HealthRule(), 3.0)
        self.config = PoolConfig(
            queue_size=5,
            max_in_flight_per_server=2,
            slow_start_s=0,
            models=[ModelNeed(name="m"), ModelNeed(name="n")],
        )
        self.open: deque[Claim] = deque()
        self.pairs: list[tuple[Claim, Claim]] = []
        self.owners = 0
        self.ended: Counter[object] = Counter()
        self.began: set[int] = set()
        self.swap(15)

    @property
    def pool(self) -> Pool:
        return self.front.pools["default"]

    def take(self, served: Any) -> None:
        for ticket, result in served:
            self.ended[ticket.owner] += 1
            assert ticket.flow is None
            if isinstance(result, Claim):
                self.open.append(result)

    def freed(self, claim: Claim) -> None:
        if claim.pool.waiting:
            self.take(claim.pool.freed(claim.member, self.now))

    def place(self, model: str | None, ask: Ask | None, wait_s: float, tried: set[Member]) -> None:
        claim = self.pool.claim(model, self.now, tried, ask)
        if claim is not None:
            assert claim.member.in_flight <= 2 and claim.member.usable
            self.open.append(claim)
            return
        self.owners += 1
        ticket = Ticket(self.owners, model, self.now + wait_s, ask)
        try:
            self.take(self.pool.wait(ticket, self.now))
        except Refusal:
            return
        self.began.add(self.owners)

    @rule(
        model=st.sampled_from([None, "m", "n", "?"]),
        tenant=st.sampled_from([None, "a", "a", "b"]),
        priority=st.integers(0, 2),
        wait_s=st.sampled_from([0.0, 0.5, 3.0, 100.0]),
    )
    def arrive(self, model: str | None, tenant: str | None, priority: int, wait_s: float) -> None:
        self.pool.arrivals += 1
        self.place(model, asking(tenant, priority) if tenant or priority else None, wait_s, set())

    @precondition(lambda self: self.open)
    @rule(
        outcome=st.sampled_from(
            ["completed", "rejected", "error", "busy", "excused", "refused", "abandoned"]
        ),
        turn=st.integers(0, 20),
    )
    def finish(self, outcome: Any, turn: int) -> None:
        self.open.rotate(turn)
        claim = self.open.pop()
        claim.pool.settle(claim, outcome, 1.0, self.now)
        self.freed(claim)

    @precondition(lambda self: self.open)
    @rule(outcome=st.sampled_from(["retry", "resent"]))
    def retry(self, outcome: Any) -> None:
        claim = self.open.popleft()
        if claim.pool is not self.pool:
            self.open.append(claim)
            return
        claim.pool.settle(claim, outcome, 0.0, self.now)
        self.place(claim.model, claim.ask, 3.0, {claim.member})
        self.freed(claim)

    @precondition(lambda self: self.open)
    @rule()
    def hedge(self) -> None:
        claim = self.open[0]
        second = claim.pool.second_claim(claim, claim.model, self.now)
        if second is not None:
            assert second.member is not claim.member
            self.open.popleft()
            self.pairs.append((claim, second))

    @precondition(lambda self: self.pairs)
    @rule(first=st.booleans())
    def win(self, first: bool) -> None:
        winner, loser = self.pairs.pop() if first else self.pairs.pop()[::-1]
        winner.pool.settle(winner, "completed", 1.0, self.now)
        loser.pool.settle(loser, "spare", 0.0, self.now)
        self.freed(winner)
        self.freed(loser)

    @precondition(lambda self: self.pool.waiting)
    @rule(turn=st.integers(0, 4))
    def leave(self, turn: int) -> None:
        ticket = list(self.pool.waiting)[turn % len(self.pool.waiting)]
        self.pool.leave(ticket)
        self.ended[ticket.owner] += 1

    @rule(seconds=st.sampled_from([0.01, 0.25, 1.0, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.pool.advance(self.now)
        self.take(self.front.serve_waiting(self.now))
        assert all(ticket.deadline > self.now for ticket in self.pool.waiting)

    @precondition(lambda self: self.front.members)
    @rule(which=st.integers(0, 3), well=st.booleans())
    def health(self, which: int, well: bool) -> None:
        member = self.front.members[which % len(self.front.members)]
        if well:
            member.health.passed(self.now)
        else:
            member.health.connect_failed("gone", self.now)
        self.take(self.front.refresh(member, self.now))

    @rule(which=st.integers(0, 15))
    def swap(self, which: int) -> None:
        backends = [
            Backend(name=f"h{i}", address=f"h{i}:1", models={"m": "1"} if i == 1 else {})
            for i in range(4)
            if which >> i & 1
        ]
        swap = self.front.swap(BackendList(pools=[self.config], backends=backends), self.now)
        self.take(swap.served)
        for member in swap.added:
            member.health.passed(self.now)
            self.take(self.front.refresh(member, self.now))

    @rule()
    def dismiss(self) -> None:
        self.take(self.pool.dismiss())
        assert not self.pool.waiting

    @invariant()
    def counts_add_up(self) -> None:
        pool = self.pool
        ended = pool.completed + pool.errors + pool.refused + pool.abandoned
        assert pool.arrivals == ended + pool.in_flight + len(pool.waiting)
        assert pool.in_flight == len(self.open) + len(self.pairs)
        held = Counter(c.member for c in [*self.open, *(c for pair in self.pairs for c in pair)])
        assert all(member.in_flight == held[member] for member in self.front.members)
        assert len(pool.waiting) <= 5

    @invariant()
    def each_wait_ends_once(self) -> None:
        still = {ticket.owner for ticket in self.pool.waiting}
        assert {owner for owner in self.began if not self.ended[owner]} == still
        assert all(count == 1 for count in self.ended.values())

    @invariant()
    def nobody_waits_beside_a_free_host(self) -> None:
        for ticket in self.pool.waiting:
            assert self.pool.claim(ticket.model, self.now, (), ticket.ask, waited=True) is None


TestWhateverHappens = WhateverHappens.TestCase
TestWhateverHappens.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
