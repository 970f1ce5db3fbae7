"""The routing policies, without I/O: what must hold in each of them, whatever happens, and what sets each apart."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_balancer.ask import Ask
from fleet_balancer.front import Front
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member, MemoryReport
from fleet_balancer.member.orca import read_load
from fleet_balancer.pick.by_score import ByScore
from fleet_balancer.pick.consistent_hash import BOUND
from fleet_balancer.pick.report import scarcity
from fleet_balancer.pool import Claim, Pool
from fleet_wire.balancer import Backend, ModelNeed, PoolConfig, Routing

GIB = 1 << 30
STALE_S = 3.0
ROUTINGS = get_args(Routing)
BY_LOAD: tuple[Routing, ...] = ("least_connections", "gpu_memory", "weighted", "response_time")


def member_of(name: str, **spec: Any) -> Member:
    member = Member(Backend(name=name, address=f"{name}:1", **spec), HealthRule())
    member.health.passed()
    return member


def pool_of(routing: Routing, *members: Member, zone: str | None = None, **config: Any) -> Pool:
    pool = Pool(PoolConfig(routing=routing, **config), random.Random(7), STALE_S, zone)
    pool.replace(members)
    return pool


def placed(pool: Pool, model: str | None = None, now: float = 0.0, ask: Ask | None = None) -> Claim:
    claim = pool.claim(model, now, (), ask)
    assert claim is not None
    return claim


def many(pool: Pool, times: int, model: str | None = None, now: float = 0.0) -> Counter[str]:
    """Where so many requests go, none of which ends."""
    return Counter(placed(pool, model, now).member.name for _ in range(times))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 11)),
        st.tuples(st.just("settle"), st.integers(0, 50)),
        st.tuples(st.just("health"), st.integers(0, 7)),
        st.tuples(st.just("drain"), st.integers(0, 7)),
        st.tuples(st.just("trial"), st.integers(0, 7)),
        st.tuples(st.just("elsewhere"), st.integers(0, 15)),
        st.tuples(st.just("report"), st.integers(0, 31)),
        st.tuples(st.just("sleep"), st.integers(1, 20)),
        st.tuples(st.just("leave"), st.integers(0, 7)),
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(ROUTINGS), st.lists(st.integers(1, 4), min_size=8, max_size=8), steps)
def test_nobody_is_picked_who_may_not_be_and_somebody_is_where_anybody_may(
    routing: Routing, weights: list[int], todo: list[tuple[str, int]]
) -> None:
    """Checked against looking at every host at every step."""
    everyone = [
        member_of(
            f"h{i}",
            weight=weight,
            zone="ab"[i % 2],
            models=[{}, {"big": "1"}, {"big": "2", "small": "1"}, {"small": "1"}][i % 4],
            max_in_flight=2 if i < 3 else None,
        )
        for i, weight in enumerate(weights)
    ]
    models = [ModelNeed(name="big", device_memory_bytes=4 * GIB), ModelNeed(name="small")]
    pool = pool_of(
        routing, *everyone, zone="a", models=models, max_in_flight_per_server=4, ejection={"enabled": False}
    )
    now = 0.0
    claims: list[Claim] = []
    for what, n in todo:
        member = everyone[n % 8]
        if what == "claim":
            model = (None, "big", "small")[n % 3]
            version = (None, "1", "2", "9")[n % 4] if model else None
            tried = {member} if n % 2 else ()
            able = {
                m
                for m in pool.members
                if m.usable and not m.full and m not in tried and serves(m, model, version)
                if not (model == "big" and m.lacks("big", 4 * GIB, now, STALE_S))
            }
            session = b"%d" % n if n > 6 else None
            claim = pool.claim(model, now, tried, Ask(version=version, session=session))
            assert (claim is not None) == bool(able)
            if claim is not None:
                assert claim.member in able
                claims.append(claim)
        elif what == "settle" and claims:
            claim = claims.pop(n % len(claims))
            pool.settle(claim, "completed", 1.0, now + 0.01)
        elif what == "health":
            if member.health.healthy:
                member.health.connect_failed("gone")
            else:
                member.health.passed()
            pool.refresh(member, now)
        elif what == "drain":
            member.draining = not member.draining
            pool.refresh(member, now)
        elif what == "trial":
            member.trial = not member.trial
            pool.refresh(member, now)
        elif what == "elsewhere":
            member.elsewhere = n // 8 * 2
            member.changed()
        elif what == "report":
            used = (1, 7, 8, 4)[n // 8] * GIB
            pool.reported(member, MemoryReport(now, used, 8 * GIB))
        elif what == "sleep":
            now += n * 0.3
        elif what == "leave":
            pool.replace([m for m in pool.members if m is not member] or everyone)
        assert pool.usable == sum(m.usable for m in pool.members)


def serves(member: Member, model: str | None, version: str | None) -> bool:
    models = member.spec.models
    return not models or model is None or (model in models and version in (None, models[model]))


touches = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["up", "down", "elsewhere", "slow"])), max_size=60
)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(BY_LOAD), st.lists(st.integers(1, 4), min_size=6, max_size=6), touches)
def test_after_any_changes_the_pick_is_the_minimum_that_looking_at_all_hosts_finds(
    routing: Routing, weights: list[int], changes: list[tuple[int, str]]
) -> None:
    members = [member_of(f"h{i}", weight=w, capacity_rps=10.0 * w) for i, w in enumerate(weights)]
    pool = pool_of(routing, *members)
    picker = pool._picker
    assert isinstance(picker, ByScore)
    now = 1.0
    for n, change in changes:
        member = members[n]
        now += 0.1
        if change == "up":
            member.in_flight += 1
        elif change == "down":
            member.in_flight = max(0, member.in_flight - 1)
        elif change == "elsewhere":
            member.elsewhere = (member.elsewhere + 3) % 7
        else:
            picker.observed(member, None, 50.0 * (n + 1), 1, now)
        member.changed()
        # After the pick, for it is then that a host is found to be stuck.
        chosen = picker.pick(None, now)
        assert chosen is min(members, key=lambda m: (picker.score(m), m.turn))


@pytest.mark.parametrize("routing", ["least_connections", "gpu_memory", "round_robin", "weighted"])
@settings(deadline=None, max_examples=25)
@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_shares_are_proportional_to_weights(routing: Routing, weights: list[int]) -> None:
    pool = pool_of(routing, *[member_of(f"h{i}", weight=w) for i, w in enumerate(weights)])
    got = many(pool, 10 * sum(weights))
    for i, weight in enumerate(weights):
        assert abs(got[f"h{i}"] - 10 * weight) <= 1


@pytest.mark.parametrize("routing", BY_LOAD)
def test_equal_hosts_take_turns_in_order(routing: Routing) -> None:
    pool = pool_of(routing, *[member_of(f"h{i}") for i in range(5)])
    got = []
    for _ in range(15):
        claim = placed(pool)
        got.append(claim.member.name)
        pool.settle(claim, "completed", 1.0)
    assert got == [f"h{i}" for i in range(5)] * 3


def test_least_connections_learns_which_hosts_are_fast_and_leaves_equal_ones_alone() -> None:
    speeds = {"h0": 1.0, "h1": 1.0, "h2": 4.0}
    pool = pool_of("least_connections", *[member_of(name) for name in speeds])
    rng = random.Random(3)
    now = 0.0
    for _ in range(400):
        for claim in [placed(pool, None, now) for _ in range(4)]:
            size = rng.paretovariate(1.5)
            took = size * claim.depth / speeds[claim.member.name]
            pool.settle(claim, "completed", took, now + took)
        now += 1000.0
    slow, also, fast = (m.speed for m in pool.members)
    assert slow == pytest.approx(also, rel=0.35)
    assert 2.0 < fast / slow < 6.0
    even = pool_of("least_connections", member_of("a"), member_of("b"))
    for i in range(400):
        claim = placed(even, None, float(i))
        even.settle(claim, "completed", 1.0, i + rng.uniform(0.9, 1.1))
    assert [m.speed for m in even.members] == [1.0, 1.0]


def test_a_host_that_answers_nothing_for_long_counts_as_deeper_until_it_does() -> None:
    pool = pool_of("least_connections", member_of("stuck"), member_of("free"))
    stuck, free = pool.members
    now = 0.0
    for _ in range(20):
        for claim in [placed(pool, None, now), placed(pool, None, now)]:
            pool.settle(claim, "completed", 100.0, now + 0.1)
        now += 0.2
    one, two = placed(pool, None, now), placed(pool, None, now)
    held, other = (one, two) if one.member is stuck else (two, one)
    pool.settle(other, "completed", 100.0, now + 0.1)
    # Half a second without an answer where 0.1 s is usual: worth several requests.
    claims = [placed(pool, None, now + 0.5) for _ in range(3)]
    assert {c.member for c in claims} == {free}
    assert stuck.in_flight == 1
    pool.settle(held, "completed", 100.0, now + 0.6)
    assert placed(pool, None, now + 0.6).member is stuck


def test_response_time_avoids_a_host_that_became_slow_and_tries_it_again() -> None:
    pool = pool_of("response_time", member_of("good"), member_of("slow"))
    now = 0.0
    for _ in range(20):
        claim = placed(pool, None, now)
        now += 0.1
        pool.settle(claim, "completed", 100.0, now)
    slow = pool.members[1]
    while (claim := placed(pool, None, now)).member is not slow:
        pool.settle(claim, "completed", 100.0, now + 0.1)
        now += 0.1
    pool.settle(claim, "completed", 2000.0, now + 2.0)
    now += 2.0
    hit = None
    for _ in range(600):
        claim = placed(pool, None, now)
        if claim.member is slow:
            hit = now
            break
        now += 0.1
        pool.settle(claim, "completed", 100.0, now)
    # A cost 20 times as high falls to the other's in 10 s x ln 20 = 30 s.
    assert hit is not None
    assert 25.0 < hit - 4.0 < 36.0


def test_weighted_follows_learned_capacity_and_takes_the_mean_where_none_is_known() -> None:
    members = [member_of("a", capacity_rps=100.0), member_of("b", capacity_rps=300.0), member_of("c")]
    assert many(pool_of("weighted", *members), 60) == {"a": 10, "b": 30, "c": 20}


def test_weighted_takes_capacity_from_load_reports_where_nobody_stated_it() -> None:
    pool = pool_of("weighted", member_of("a"), member_of("b"), member_of("c"))
    pool.reported_inline(pool.members[0], b"TEXT cpu_utilization=0.5,rps_fractional=50", 1.0)
    assert many(pool, 30, now=1.0) == {"a": 10, "b": 10, "c": 10}  # alone it is the mean
    pool.reported_inline(pool.members[1], b"TEXT cpu_utilization=0.25,rps_fractional=75", 1.0)
    assert many(pool, 330, now=1.0) == {"a": 50, "b": 170, "c": 110}


def test_power_of_two_draws_only_hosts_with_room() -> None:
    members = [member_of(f"h{i}", max_in_flight=1) for i in range(50)]
    pool = pool_of("power_of_two", *members)
    assert set(many(pool, 50).values()) == {1}
    assert pool.claim(None, 0.0) is None


def sessions_of(pool: Pool, count: int) -> dict[int, str]:
    """Which host each session has, asked one at a time."""
    found = {}
    for i in range(count):
        claim = placed(pool, ask=Ask(session=b"session %d" % i))
        found[i] = claim.member.name
        pool.settle(claim, "completed", 1.0)
    return found


@settings(deadline=None, max_examples=15)
@given(st.integers(3, 12), st.integers(0, 11))
def test_when_a_host_leaves_only_its_sessions_move(hosts: int, leaver: int) -> None:
    members = [member_of(f"h{i}") for i in range(hosts)]
    pool = pool_of("consistent_hash", *members)
    before = sessions_of(pool, 200)
    assert sessions_of(pool, 200) == before
    gone = members[leaver % hosts]
    pool.replace([m for m in members if m is not gone])
    after = sessions_of(pool, 200)
    assert {i for i in before if before[i] != after[i]} == {i for i in before if before[i] == gone.name}
    pool.replace(members)
    assert sessions_of(pool, 200) == before
    gone.health.connect_failed("gone")
    pool.refresh(gone, 0.0)
    assert sessions_of(pool, 200) == after


def test_about_one_session_in_n_moves_and_hosts_have_about_as_many() -> None:
    members = [member_of(f"h{i}") for i in range(10)]
    pool = pool_of("consistent_hash", *members)
    before = sessions_of(pool, 4000)
    counts = Counter(before.values())
    assert max(counts.values()) < 2 * 4000 / 10
    pool.replace(members[:-1])
    after = sessions_of(pool, 4000)
    moved = sum(before[i] != after[i] for i in before)
    assert moved == counts["h9"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=200),
    st.lists(st.integers(1, 3), min_size=2, max_size=8),
)
def test_no_host_has_much_more_than_its_share_of_the_sessions(keys: list[int], weights: list[int]) -> None:
    members = [member_of(f"h{i}", weight=w) for i, w in enumerate(weights)]
    pool = pool_of("consistent_hash", *members)
    total = sum(weights)
    for count, key in enumerate(keys, 1):
        chosen = placed(pool, ask=Ask(session=b"%d" % key)).member
        assert chosen.in_flight <= math.ceil(BOUND * count * chosen.weight / total)


def test_requests_without_a_session_go_where_least_is_in_flight() -> None:
    pool = pool_of("consistent_hash", *[member_of(f"h{i}") for i in range(4)])
    assert set(many(pool, 40).values()) == {10}


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_model_goes_only_where_it_is_ready_in_the_version_asked_for(routing: Routing) -> None:
    members = [
        member_of("old", models={"m": "1"}),
        member_of("new", models={"m": "2"}),
        member_of("other", models={"x": "1"}),
        member_of("any"),
    ]
    pool = pool_of(routing, *members)

    def went(model: str | None, version: str | None = None) -> set[str]:
        found = set()
        for i in range(60):
            ask = Ask(version=version, session=b"%d" % i) if version else None
            claim = placed(pool, model, 0.0, ask)
            found.add(claim.member.name)
            pool.settle(claim, "completed", 1.0)
        return found

    assert went("m") == {"old", "new", "any"}
    assert went("m", "1") == {"old", "any"}
    assert went("m", "2") == {"new", "any"}
    assert went("x") == {"other", "any"}
    assert went(None) == {"old", "new", "other", "any"}
    pool.replace(members[:3])
    assert pool.claim("nix", 0.0) is None
    assert pool.claim("m", 0.0, (), Ask(version="3")) is None


@pytest.mark.parametrize(
    ("target", "model", "version"),
    [
        (b"/v2/models/m/versions/3/infer", "m", "3"),
        (b"/v1/models/m/versions/3:predict", "m", "3"),
        (b"/v2/models/m:x/infer", "m:x", None),
        (b"/v1/models/m:predict", "m", None),
    ],
)
def test_the_path_or_a_header_names_the_version(target: bytes, model: str, version: str | None) -> None:
    front = Front(random.Random(1), HealthRule(), STALE_S)
    for _ in range(2):  # the second time from the table
        route = front.route(target, None)
        assert (route.model, route.version) == (model, version)
        assert front.route(target, None, b"7").version == "7"
        route = front.route(target, b"other", b"9")
        assert (route.model, route.version) == ("other", "9")


@pytest.mark.parametrize("routing", ["least_connections", "gpu_memory", "round_robin", "power_of_two"])
def test_requests_stay_in_the_zone_until_it_is_twice_as_busy_or_full(routing: Routing) -> None:
    local = [member_of(f"l{i}", zone="a", max_in_flight=20) for i in range(2)]
    far = [member_of(f"f{i}", zone="b") for i in range(2)]
    pool = pool_of(routing, *local, *far, zone="a")
    assert set(many(pool, 2)) == {"l0", "l1"}
    many(pool, 34)
    here, there = sum(m.in_flight for m in local), sum(m.in_flight for m in far)
    assert 1.5 <= here / there <= 2.5
    many(pool, 200)
    assert [m.in_flight for m in local] == [20, 20]
    for member in local:
        member.draining = True
        pool.refresh(member, 0.0)
    assert set(many(pool, 4)) == {"f0", "f1"}


def test_without_a_zone_of_its_own_the_balancer_treats_all_hosts_alike() -> None:
    pool = pool_of("least_connections", member_of("a", zone="x"), member_of("b", zone="y"))
    assert many(pool, 10) == {"a": 5, "b": 5}


@pytest.mark.parametrize("routing", ["least_connections", "round_robin", "weighted"])
def test_a_new_host_begins_with_little_and_gets_all_of_its_share_in_the_end(routing: Routing) -> None:
    old = [member_of("a"), member_of("b")]
    new = member_of("new")
    new.health.connect_failed("not there yet")
    pool = pool_of(routing, *old, new, slow_start_s=10)
    for member in old:
        pool.refresh(member, 100.0)
    new.health.passed()
    pool.refresh(new, 200.0)
    shares = []
    for now in (200.0, 205.0, 209.9, 210.1):
        claims = [placed(pool, None, now) for _ in range(300)]
        shares.append(sum(c.member is new for c in claims) / 100)
        for claim in claims:
            pool.settle(claim, "refused")
    assert shares[0] < 0.2
    assert 0.4 < shares[1] < 0.7
    assert shares[2] < shares[3]
    assert shares[3] == pytest.approx(1.0, abs=0.1)
    assert new.status(210.1).weight == 1.0


def test_where_all_hosts_are_new_none_has_to_ramp() -> None:
    members = [member_of(f"h{i}") for i in range(3)]
    for member in members:
        member.health.connect_failed("not yet")
    pool = pool_of("least_connections", *members, slow_start_s=10)
    for i, member in enumerate(members):
        member.health.passed()
        pool.refresh(member, 50.0 + i)
    assert many(pool, 30, now=52.0) == {"h0": 10, "h1": 10, "h2": 10}


needy = [ModelNeed(name="a", device_memory_bytes=3 * GIB), ModelNeed(name="b", device_memory_bytes=3 * GIB)]


def test_what_was_placed_since_the_report_is_taken_off_the_free_memory() -> None:
    pool = pool_of("gpu_memory", member_of("h"), models=needy)
    host = pool.members[0]
    pool.reported(host, MemoryReport(0.0, 11 * GIB, 16 * GIB))
    assert scarcity(host, STALE_S) == 1.0
    placed(pool, "a", 0.1)
    assert scarcity(host, STALE_S) > 1.0
    assert pool.claim("b", 0.2) is None
    assert pool.claim("a", 0.2) is not None
    # A report that does not show it yet: still counted.
    pool.reported(host, MemoryReport(1.0, 11 * GIB, 16 * GIB))
    assert pool.claim("b", 1.1) is None
    # One that shows it as the model's own: the report says all.
    pool.reported(host, MemoryReport(2.0, 14 * GIB, 16 * GIB, {"a": 3 * GIB}))
    assert pool.claim("b", 2.1) is None
    assert pool.claim("a", 2.1) is not None
    pool.reported(host, MemoryReport(3.0, 11 * GIB, 16 * GIB))
    assert pool.claim("b", 3.1) is not None


def test_where_a_report_never_shows_a_placement_it_is_believed_after_three_intervals() -> None:
    pool = pool_of("gpu_memory", member_of("h"), models=needy)
    host = pool.members[0]
    pool.reported(host, MemoryReport(0.0, 11 * GIB, 16 * GIB))
    placed(pool, "a", 0.1)
    for at in (1.0, 2.0, 3.0):
        pool.reported(host, MemoryReport(at, 11 * GIB, 16 * GIB))
        assert pool.claim("b", at) is None
    pool.reported(host, MemoryReport(4.0, 11 * GIB, 16 * GIB))
    assert pool.claim("b", 4.0) is not None


def test_what_others_have_in_flight_counts_until_the_report_is_old() -> None:
    pool = pool_of("gpu_memory", member_of("busy"), member_of("idle"))
    pool.reported(pool.members[0], MemoryReport(10.0, busy=40))
    assert many(pool, 10, now=10.0) == {"idle": 10}
    assert many(pool, 10, now=13.1) == {"busy": 10}


@pytest.mark.parametrize(
    ("value", "memory", "capacity"),
    [
        (b"TEXT mem_utilization=0.25, cpu_utilization=0.5,rps_fractional=100", 0.25, 200.0),
        (b"TEXT named_metrics.kv_cache_usage_perc=0.9,mem_utilization=0.1", 0.9, None),
        (b'JSON {"application_utilization": 0.8, "rps_fractional": 40, "mem_utilization": 0.5}', 0.5, 50.0),
        (b'JSON {"named_metrics": {"kv_cache_utilization": 1.5}}', 1.0, None),
    ],
)
def test_a_load_report_in_a_reply_is_read(value: bytes, memory: float | None, capacity: float | None) -> None:
    load = read_load(value, 5.0)
    assert load is not None
    assert (load.at, load.memory, load.capacity_rps) == (5.0, memory, pytest.approx(capacity))


@given(st.binary(max_size=60))
def test_a_broken_load_report_is_no_report(value: bytes) -> None:
    for form in (b"", b"TEXT ", b"JSON ", b"BIN "):
        load = read_load(form + value, 0.0)
        assert load is None or load.memory is None or 0.0 <= load.memory <= 1.0


@pytest.mark.parametrize(
    "value",
    [b"JSON [1]", b"JSON " + b"[" * 4000, b"TEXT mem_utilization=nan", b"TEXT rps=1,cpu_utilization=0"],
)
def test_a_senseless_load_report_is_no_report(value: bytes) -> None:
    assert read_load(value, 0.0) is None


def test_a_load_report_moves_traffic_while_it_is_young() -> None:
    pool = pool_of("gpu_memory", member_of("full"), member_of("free"))
    pool.reported_inline(pool.members[0], b"TEXT named_metrics.kv_cache_usage_perc=1.0", 10.0)
    assert many(pool, 10, now=10.0) == {"full": 2, "free": 8}
    pool.reported_inline(pool.members[0], b"nonsense", 11.0)
    assert many(pool, 6, now=13.1)["full"] == 6
