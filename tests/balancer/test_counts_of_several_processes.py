"""Pure: several processes' counts as one, shared in-flight counts, and what an operator changed by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member
from fleet_balancer.process.condition import Condition, SavedEjection
from fleet_balancer.roster import Roster
from fleet_balancer.telemetry.merge import agreed, last_words, merge
from fleet_balancer.telemetry.traffic import MODELS, Traffic
from fleet_balancer.workers.counts import FRESH_S, SLOTS, TURN_S, Crowd, SharedCounts, SlotTable
from fleet_wire.balancer import (
    Backend,
    BackendList,
    BackendStatus,
    BalancerStatus,
    Figure,
    PoolConfig,
    PoolStatus,
)
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal

# Made once: hypothesis asks again and again.
MANY = [Member(Backend(name=str(i), address=f"h:{i}"), HealthRule()) for i in range(1500)]
COUNTS = ("completed", "errors", "refused", "abandoned", "in_flight", "queued")


def holds(pool: PoolStatus) -> bool:
    return pool.arrivals == sum(getattr(pool, name) for name in COUNTS)


@st.composite
def statuses(draw: st.DrawFn) -> BalancerStatus:
    counts = {name: draw(st.integers(0, 50)) for name in COUNTS}
    histogram = LatencyHistogram()
    for ms in draw(st.lists(st.floats(0.1, 1e4), max_size=5)):
        histogram.record(ms)
    pool = PoolStatus(name="p", arrivals=sum(counts.values()), **counts, latency=histogram.to_wire())
    host = BackendStatus(
        name="a",
        pool="p",
        address="h:1",
        state="active",
        healthy=draw(st.booleans()),
        in_flight=counts["in_flight"],
        requests=pool.arrivals,
        errors=counts["errors"],
    )
    figure = Figure(name="x", kind="counter", help="x", labels={"pool": "p"}, value=draw(st.integers(0, 9)))
    return BalancerStatus(
        pid=1, started_at=1.0, at=2.0, endpoint="", pools=[pool], backends=[host], figures=[figure]
    )


@given(st.lists(statuses(), min_size=1, max_size=4), st.lists(statuses(), max_size=2))
def test_the_sum_has_every_request_once(serving: list[BalancerStatus], gone: list[BalancerStatus]) -> None:
    ended = [last_words(s) for s in gone]
    whole = merge(serving, ended)
    everyone = [*serving, *gone]
    pool, host = whole.pools[0], whole.backends[0]
    assert holds(pool)
    assert pool.arrivals == sum(s.pools[0].arrivals for s in everyone)
    assert pool.in_flight == host.in_flight == sum(s.pools[0].in_flight for s in serving)
    assert pool.latency.count == sum(s.pools[0].latency.count for s in everyone)
    assert host.requests == sum(s.backends[0].requests for s in everyone)
    assert host.healthy == all(s.backends[0].healthy for s in serving)
    assert whole.figures[0].value == sum(s.figures[0].value for s in everyone)
    assert whole.workers == len(serving)


@given(statuses())
def test_who_is_gone_has_nothing_in_flight_and_what_it_had_is_an_error(status: BalancerStatus) -> None:
    left, pool = last_words(status).pools[0], status.pools[0]
    assert holds(left)
    assert (left.in_flight, left.queued) == (0, 0)
    assert left.errors == pool.errors + pool.in_flight
    assert last_words(last_words(status)) == last_words(status)


def test_a_host_is_ejected_for_as_long_as_any_process_says() -> None:
    def says(left_s: float, *healthy: str) -> Condition:
        one = SavedEjection(name="a", address="h:1", state="open", left_s=left_s, times=1, reason="5xx")
        return Condition(healthy=list(healthy), ejections={"p": [one]})

    both = agreed([says(3.0, "x", "y"), says(7.0, "y"), Condition(healthy=["y", "z"])])
    assert both.healthy == ["y"]
    assert [e.left_s for e in both.ejections["p"]] == [7.0]


def members(names: str) -> list[Member]:
    return [Member(Backend(name=n, address=f"{n}:1"), HealthRule()) for n in names]


def test_each_worker_sees_what_the_others_have_in_flight_and_a_dead_one_has_nothing() -> None:
    counts = SharedCounts(3)
    slots = {"a": 5, "b": 1}
    sides = []
    for number in range(2):
        hosts = members("ab")
        crowd = Crowd(counts, number)
        crowd.seat(hosts, slots, {m: m.name for m in hosts})
        sides.append((crowd, hosts))
    (one, (a1, b1)), (two, (a2, b2)) = sides
    a1.in_flight, b2.in_flight = 4, 7
    a1.changed()
    b2.changed()
    assert one.refresh(1.0) and two.refresh(1.0)
    assert (a1.elsewhere, b1.elsewhere, a2.elsewhere, b2.elsewhere) == (0, 7, 4, 0)
    counts.row(2)[5] = 2  # what the process before this one still has
    assert not two.refresh(1.0 + FRESH_S / 2), "not asked twice at once"
    assert two.refresh(1.0 + 2 * FRESH_S)
    assert a2.elsewhere == 6
    counts.clear(0)
    assert two.refresh(2.0)
    assert a2.elsewhere == 2
    assert not two.refresh(3.0), "nothing has changed"


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), min_size=1, max_size=30))
def test_a_slot_belongs_to_one_host_and_stays_with_it(lists: list[list[str]]) -> None:
    table = SlotTable()
    for hosts in lists:
        before = dict(table.slots)
        table.assign(hosts)
        assert set(table.slots) == set(hosts)
        assert len(set(table.slots.values())) == len(hosts)
        assert all(table.slots[h] == before[h] for h in hosts if h in before)
        # Who still finishes on a host that left writes to its old slot: nobody else's for a long time.
        gone = {slot for host, slot in before.items() if host not in hosts}
        assert not gone & {table.slots[h] for h in hosts if h not in before}


def test_more_hosts_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 65535"):
        SlotTable().assign(str(i) for i in range(SLOTS))


@given(st.integers(1, 7), st.integers(2, 4))
def test_a_bound_is_dealt_out_among_workers_whose_requests_wait(limit: int, workers: int) -> None:
    counts = SharedCounts(workers + 1)
    crowds, hosts = [], []
    for number in range(workers):
        (host,) = members("a")
        host.limit = limit
        crowd = Crowd(counts, number)
        crowd.seat([host], {"a": 1}, {host: "a"})
        crowd.wait(5)
        crowds.append(crowd)
        hosts.append(host)
    had = [0] * workers
    for turn in range(workers):
        now = 100.0 + (turn + 0.5) * TURN_S
        for number, crowd in enumerate(crowds):
            crowd.refresh(now)
            had[number] += limit - hosts[number].elsewhere
        assert sum(limit - host.elsewhere for host in hosts) == limit
    assert had == [limit] * workers, "over a round each has had the same"
    for crowd in crowds[1:]:
        crowd.wait(0)
    assert crowds[0].refresh(200.0) and hosts[0].elsewhere == 0, "alone, it may have it all"


@given(st.lists(st.tuples(st.sampled_from(["drain", "undrain", "weigh", "put"]), st.sampled_from("abc"))))
def test_an_operators_word_holds_until_it_is_taken_back_or_the_host_leaves(
    steps: list[tuple[str, str]],
) -> None:
    def listed(names: str) -> BackendList:
        hosts = [Backend(name=n, address=f"{n}:1") for n in names]
        return BackendList(pools=[PoolConfig()], backends=hosts)

    roster = Roster(given=listed("abc"))
    drained: set[str] = set()
    weights: dict[str, float] = {}
    names = "abc"
    for verb, name in steps:
        if verb == "put":
            names = "abc".replace(name, "") if name in names else "abc"
            roster = roster.put(listed(names))
            drained &= set(names)
            weights = {n: w for n, w in weights.items() if n in names}
            continue
        if name not in names:
            with pytest.raises(Refusal, match="there is no backend"):
                roster.drain(name)
            continue
        if verb == "weigh":
            weight = None if name in weights else random.Random(name).uniform(0.5, 4)
            roster = roster.weigh(name, weight)
            weights = {n: w for n, w in weights.items() if n != name} | ({name: weight} if weight else {})
        else:
            roster = roster.drain(name) if verb == "drain" else roster.undrain(name)
            (drained.add if verb == "drain" else drained.discard)(name)
    for backend in roster.effective().backends:
        assert backend.state == ("draining" if backend.name in drained else "active")
        assert backend.weight == weights.get(backend.name, 1.0)


def test_clients_cannot_fill_the_metrics_with_models() -> None:
    declared, free = Traffic(), Traffic()
    declared.configure(["a"])
    for traffic in (declared, free):
        traffic.completed(["a", None, *(f"m{i}" for i in range(200))], [100.0] * 202)
        traffic.failed("a")
        traffic.failed("nobody")
    rows = {
        (f.labels["model"], f.labels["outcome"]): f.value
        for f in declared.rows("p")
        if f.name == "model_requests"
    }
    assert rows == {
        ("a", "completed"): 1,
        ("a", "errors"): 1,
        ("other", "completed"): 200,
        ("other", "errors"): 1,
    }
    named = {f.labels["model"] for f in free.rows("p") if "model" in f.labels}
    assert len(named) == MODELS + 1 and "other" in named


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1499), st.integers(0, 9)), max_size=6),
        min_size=1,
        max_size=8,
    )
)
def test_a_look_misses_no_change_however_many_hosts_there_are(
    rounds: list[list[tuple[int, int, int]]],
) -> None:
    counts = SharedCounts(4)
    hosts = MANY
    for host in hosts:
        host.elsewhere = 0
    crowd = Crowd(counts, 3)
    crowd.seat(hosts, {h.name: 7 + i for i, h in enumerate(hosts)}, {h: h.name for h in hosts})
    now = 0.0
    truth = [0] * len(hosts)
    rows = [[0] * len(hosts) for _ in range(3)]
    for changes in rounds:
        for row, place, value in changes:
            rows[row][place] = counts.row(row)[7 + place] = value
            truth[place] = sum(r[place] for r in rows)
        now += 1.0
        crowd.refresh(now)
        assert [h.elsewhere for h in hosts] == truth
