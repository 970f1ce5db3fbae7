"""limits: the most that policies change within a time, by the rules of Kubernetes HPA's behavior policies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.policies import PolicyState, ScalingSpec, Signal, decide
from fleet_controller.policies.pace import Moves, noted, pace
from fleet_controller.spec.scaling import Limits

T0 = 1_790_000_000.0
EAGER = {
    "target_utilization": 0.5,
    "tolerance": 0,
    "cooldown": {"scale_up": 0, "scale_down": 0},
    "stabilization": {"scale_down": 0},
    "max_servers": 100,
}


@pytest.mark.parametrize(
    ("limits", "current", "moves", "least", "most"),
    [
        # without a limit anywhere
        ({}, 10, (), 0, None),
        # HPA: pods 4 per 60 s; from 10 to 14; after 3 were added within the minute it is still 14, not 17
        ({"scale_up": {"servers": 4}}, 10, (), 0, 14),
        ({"scale_up": {"servers": 4}}, 13, ((-59, 3),), 0, 14),
        ({"scale_up": {"servers": 4}}, 13, ((-60, 3),), 0, 17),  # the minute is over
        ({"scale_up": {"servers": 4}}, 14, ((-30, 3), (-10, 1)), 0, 14),
        # percent is rounded up: 10 % of 11 is 1.1, so 13; 10 % of 10 is 1; 100 % doubles
        ({"scale_up": {"percent": 10}}, 11, (), 0, 13),
        ({"scale_up": {"percent": 10}}, 10, (), 0, 11),
        ({"scale_up": {"percent": 100}}, 3, (), 0, 6),
        ({"scale_up": {"percent": 100}}, 5, ((-1, 2),), 0, 6),  # 3 ran when the minute began
        # of both the larger: 4 from 2, twice from 8
        ({"scale_up": {"servers": 4, "percent": 100}}, 2, (), 0, 6),
        ({"scale_up": {"servers": 4, "percent": 100}}, 8, (), 0, 16),
        # a bound added more than the limit: policies add nothing until that is over
        ({"scale_up": {"servers": 2, "per": 300}}, 9, ((-100, 8),), 0, 9),
        ({"scale_up": {"servers": 2, "per": 300}}, 9, ((-301, 8),), 0, 11),
        # what was taken away meanwhile may come back
        ({"scale_up": {"servers": 2}}, 6, ((-10, -3),), 0, 11),
        # from nothing a percentage is nothing; a wake does not ask here
        ({"scale_up": {"percent": 100}}, 0, (), 0, 0),
        # down: half of 5 leaves 2 (HPA cuts the fraction off), 1 per 5 min, 10 % of 8 still takes one
        ({"scale_down": {"percent": 50}}, 5, (), 2, None),
        ({"scale_down": {"percent": 10}}, 8, (), 7, None),
        ({"scale_down": {"percent": 100}}, 8, (), 0, None),
        ({"scale_down": {"percent": 300}}, 8, (), 0, None),
        ({"scale_down": {"servers": 1, "per": "5m"}}, 8, (), 7, None),
        ({"scale_down": {"servers": 1, "per": "5m"}}, 7, ((-299, -1),), 7, None),
        ({"scale_down": {"servers": 1, "per": "5m"}}, 7, ((-300, -1),), 6, None),
        ({"scale_down": {"servers": 3, "percent": 50}}, 4, (), 1, None),
        ({"scale_up": {"servers": 1}, "scale_down": {"servers": 2}}, 4, ((-1, 1),), 1, 4),
    ],
)
def test_from_what_ran_when_the_time_began(
    limits: dict[str, Any], current: int, moves: Moves, least: int, most: int | None
) -> None:
    known = tuple((T0 + at, n) for at, n in moves)
    allowed = pace(Limits.model_validate(limits), known, current, T0)
    assert (allowed.least, allowed.most) == (least, 10**9 if most is None else most)


def test_the_reason_says_which_limit(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, limits={"scale_up": {"servers": 2}, "scale_down": {"servers": 1, "per": "2m"}}, **EAGER)
    p.tick(utilization=0.5)
    decision = p.tick(utilization=1.0)
    assert (decision.desired, decision.blocked_by) == (4, ())  # twice is what it wants
    decision = p.tick(utilization=1.0)
    assert decision.desired == 4
    assert decision.reason == "utilization 1 over 0.5 for 5 s; stays at 4: limits scale_up: 2 servers in 60 s"
    assert p.ticks(50, utilization=1.0).desired == 4
    decision = p.ticks(5, utilization=1.0)
    assert (decision.desired, decision.blocked_by) == (6, ("limits scale_up: 2 servers in 60 s",))
    assert decision.reason == "utilization 1 over 0.5 for 60 s, limits scale_up: 2 servers in 60 s"
    decision = p.tick(utilization=0.05)
    assert decision.desired == 1, "one fewer than ran two minutes ago"
    p = pool(ready=6, limits={"scale_down": {"servers": 1, "per": "2m"}}, **EAGER)
    p.tick(utilization=0.5)
    decision = p.tick(utilization=0.05)
    assert decision.desired == 5
    assert (
        decision.reason
        == "utilization 0.05 under 0.5, 1 server is enough, limits scale_down: 1 server in 120 s"
    )
    assert p.tick(utilization=0.05).blocked_by == ("limits scale_down: 1 server in 120 s",)


def test_bounds_people_and_a_wake_are_not_held_back(pool: Callable[..., Any]) -> None:
    slow = {"limits": {"scale_up": {"servers": 1, "per": "1h"}, "scale_down": {"servers": 1, "per": "1h"}}}
    p = pool(ready=1, **EAGER, **slow)
    p.tick(utilization=0.5)
    p.spec = p.spec.model_copy(update={"min_servers": 8})
    assert p.tick(utilization=0.5).desired == 8
    assert p.ticks(600, utilization=1.0).desired == 8, "seven came within the hour: policies add none"
    p.spec = p.spec.model_copy(update={"min_servers": 0, "max_servers": 3})
    assert p.tick(utilization=0.5).desired == 3
    idle = {"idle": {"scale_to_zero": True, "after": "30s"}, "min_servers": 0}
    p = pool(ready=5, **EAGER, **slow, **idle)
    quiet = {"arrivals_per_s": 0, "in_flight": 0, "queued": 0}
    p.tick(utilization=0.5, arrivals_per_s=1)
    assert p.ticks(60, **quiet).desired == 0
    assert p.tick(queued=1, arrivals_per_s=1, in_flight=0).desired == 1


def test_a_clock_that_is_set_does_not_let_more_through(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, limits={"scale_up": {"servers": 2, "per": "10m"}}, **EAGER)
    p.tick(utilization=0.5)
    assert p.tick(utilization=1.0).desired == 4
    for jump in (3600.0, -7200.0):
        p.now += jump
        assert p.ticks(60, utilization=1.0).desired == 4


def test_nothing_is_kept_that_no_limit_asks_for() -> None:
    limits = Limits.model_validate({"scale_up": {"servers": 1, "per": 60}})
    assert noted(Limits(), ((T0, 3),), 2, T0) == ()
    assert noted(limits, ((T0 - 61, 3), (T0 - 59, 1)), 2, T0) == ((T0 - 59, 1), (T0, 2))
    assert noted(limits, ((T0 - 59, 1),), 0, T0) == ((T0 - 59, 1),)


limit = st.fixed_dictionaries(
    {"servers": st.none() | st.integers(1, 4), "percent": st.none() | st.sampled_from([10, 50, 100])}
).filter(lambda one: one["servers"] or one["percent"])
seconds = st.sampled_from([5.0, 20.0, 60.0, 150.0])


@settings(max_examples=40, deadline=None)
@given(
    st.none() | limit,
    st.none() | limit,
    st.lists(st.tuples(st.floats(0, 1), seconds), min_size=5, max_size=40),
)
def test_never_further_from_what_ran_a_minute_ago_than_the_limit(
    up: Any, down: Any, load: list[tuple[float, float]]
) -> None:
    spec = ScalingSpec.model_validate(
        {**EAGER, "min_servers": 1, "limits": {"scale_up": up, "scale_down": down}}
    )
    state, now, ran = PolicyState(desired=5, first_at=T0, last_at=T0), T0, [(-math.inf, 5)]
    for used, passed in load:
        now += passed
        current = ran[-1][1]
        began = [n for at, n in ran if at <= now - 60][-1]
        decision, state = decide(spec, state, Signal(ready=current, utilization=used), now)
        ran.append((now, decision.desired))
        if up is not None:
            more = max(up["servers"] or 0, math.ceil(began * (up["percent"] or 0) / 100))
            assert decision.desired <= max(current, began + more)
        if down is not None:
            least = min(
                began - (down["servers"] or 0), math.floor(began * (1 - (down["percent"] or 0) / 100))
            )
            assert decision.desired >= min(current, max(1, least))
        slow = any(block.startswith("limits ") for block in decision.blocked_by)
        wanted = inside(max(1, math.ceil(current * used / 0.5 - 1e-9)))
        assert slow == (decision.desired != wanted), "and nothing else holds it back"


def inside(wanted: int) -> int:
    return min(max(wanted, 1), 100)
