"""Composition: largest wins, bounds, cooldowns, stabilization, staleness, people, sleep."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.policies import (
    Decision,
    PolicyState,
    ScalingSpec,
    Signal,
    cooldown_remaining_s,
    decide,
    set_desired,
)

T0 = 1_790_000_000.0
QUIET = {"arrivals_per_s": 0, "rps": 0, "in_flight": 0, "queued": 0}
CALM_OFF = {"cooldown": {"scale_up": 0, "scale_down": 0}, "stabilization": {"scale_down": 0}}
LATENCY = {"latency": {"percentile": 95, "target_ms": 200}}


def test_a_breach_and_a_calm_are_told_with_how_long_they_held(pool: Callable[..., Any]) -> None:
    calm = {"scale_up": "10s", "scale_down": "20s"}
    p = pool(ready=1, max_servers=3, **LATENCY, cooldown=calm, stabilization={"scale_down": "20s"})
    said = [p.tick(p95_ms=310, utilization=0.9, completed=50).reason for _ in range(3)]
    assert said[0] == "p95 310 ms over 200 ms"
    assert said[2] == "p95 310 ms over 200 ms for 10 s, max_servers 3"
    said = [p.tick(p95_ms=62, utilization=0.05, completed=50).reason for _ in range(5)]
    assert said[1] == (
        "p95 62 ms under 200 ms for 5 s, 1 server is enough; stays at 3: "
        "stabilization scale_down: 10 s left, cooldown scale_down: 10 s left"
    )
    assert said[3] == "p95 62 ms under 200 ms for 15 s, 1 server is enough"
    assert p.state.desired == 1


def test_the_largest_recommendation_wins_and_all_are_told() -> None:
    spec = ScalingSpec.model_validate(
        {"max_servers": 9, **LATENCY, "target_utilization": 0.5, "queue": {"target_per_server": 8}}
    )
    signal = Signal(ready=2, p95_ms=100, utilization=1.0, queued=30)
    decision, _ = decide(spec, PolicyState(desired=2), signal, T0)
    assert [(r.policy, r.desired) for r in decision.recommendations] == [
        ("latency", 2),
        ("utilization", 4),
        ("queue", 4),
    ]
    assert (decision.desired, decision.winner) == (4, "utilization")
    assert Decision.from_json(decision.to_json()) == decision


@pytest.mark.parametrize(
    ("ready", "starting", "desired"),
    [(0, 0, 1), (1, 0, 1), (2, 1, 3), (0, 3, 3), (9, 0, 4)],
)
def test_the_first_decision_keeps_what_runs(ready: int, starting: int, desired: int) -> None:
    for scaling in ({}, LATENCY, {"target_utilization": 0.5}):
        spec = ScalingSpec.model_validate({"min_servers": 1, "max_servers": 4, **scaling})
        signal = Signal(ready=ready, starting=starting, p95_ms=1, utilization=0.01)
        decision, state = decide(spec, PolicyState(), signal, T0)
        assert decision.desired == desired
        assert state.last_up_at is None, (
            "the first look is not a scaling event: a surge may be answered at once"
        )


def test_the_first_look_at_a_surge_answers_it() -> None:
    spec = ScalingSpec.model_validate({"max_servers": 4, **LATENCY})
    decision, _ = decide(spec, PolicyState(), Signal(ready=1, p95_ms=900), T0)
    assert decision.desired == 2


def test_without_policies_the_floor_or_the_operator_s_number(pool: Callable[..., Any]) -> None:
    p = pool(min_servers=2, max_servers=5)
    assert p.tick().desired == 2
    p.state = set_desired(p.state, 4, p.now, "scale 4")
    assert p.ticks(3600).reason == "4 servers asked for by hand"
    p.state = set_desired(p.state, 3, p.now)
    assert p.tick().desired == 3
    with pytest.raises(ValueError, match="cannot run -1 servers"):
        set_desired(p.state, -1, p.now)


def test_without_policies_a_controller_without_memory_does_not_drop_the_fleet_at_once(
    pool: Callable[..., Any],
) -> None:
    p = pool(ready=4, min_servers=1, max_servers=5)
    decision = p.ticks(300)
    assert decision.desired == 4
    assert "stabilization scale_down" in decision.blocked_by[0]
    assert p.ticks(10).desired == 1


def test_a_person_s_scale_is_a_scaling_event(pool: Callable[..., Any]) -> None:
    p = pool(ready=1, **LATENCY, cooldown={"scale_up": "60s", "scale_down": "60s"})
    p.tick(p95_ms=10, utilization=0.01)
    p.state = set_desired(p.state, 4, p.now)
    assert cooldown_remaining_s(p.spec, p.state, p.now + 20) == 40
    assert p.ticks(60, p95_ms=10, utilization=0.01).desired == 4
    p.state = set_desired(p.state, 1, p.now)
    busy = {"p95_ms": 900, "utilization": 1.0}
    decision = p.tick(**busy)
    assert (decision.desired, decision.blocked_by) == (1, ("cooldown scale_up: 60 s left",))
    assert p.ticks(60, **busy).desired == 2


def test_a_restart_with_its_memory_goes_on_and_without_data_stays(pool: Callable[..., Any]) -> None:
    p = pool(ready=3, min_servers=1, **LATENCY, target_utilization=0.5, **CALM_OFF)
    for _ in range(200):
        assert p.tick().desired == 3, "no policy has data"


def test_stale_data_moves_nothing_but_bounds_hold(pool: Callable[..., Any]) -> None:
    p = pool(ready=4, min_servers=1, max_servers=6, **LATENCY, **CALM_OFF)
    p.tick(p95_ms=150, utilization=0.8)
    decision = p.ticks(600, p95_ms=1, utilization=0.0, age_s=31)
    assert (decision.desired, decision.blocked_by) == (4, ("no fresh data",))
    assert decision.reason == "no news from the pool for 31 s, stays at 4"
    assert p.tick(p95_ms=1, utilization=0.0, age_s=30).desired == 1
    p.spec = p.spec.model_copy(update={"min_servers": 2})
    decision = p.tick(age_s=500)
    assert (decision.desired, decision.winner, decision.reason) == (
        2,
        "min_servers",
        "min_servers asks for 2 servers",
    )


def test_a_lower_ceiling_holds_at_once(pool: Callable[..., Any]) -> None:
    p = pool(ready=5, max_servers=5, **LATENCY)
    p.tick(p95_ms=190)
    p.spec = p.spec.model_copy(update={"max_servers": 2})
    decision = p.tick(p95_ms=190)
    assert (decision.desired, decision.reason) == (2, "max_servers allows 2 servers")


def test_scale_up_cooldown_runs_and_says_so(pool: Callable[..., Any]) -> None:
    p = pool(ready=1, **LATENCY, cooldown={"scale_up": "30s", "scale_down": 0})
    assert p.tick(p95_ms=900).desired == 2
    for left in (25, 20, 15, 10, 5):
        decision = p.tick(p95_ms=900)
        assert (decision.desired, decision.blocked_by) == (2, (f"cooldown scale_up: {left} s left",))
    assert p.tick(p95_ms=900).desired == 4


def test_scale_up_stabilization_wants_the_breach_to_last(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, **LATENCY, stabilization={"scale_up": "20s"})
    p.tick(p95_ms=150)
    p.tick(p95_ms=900)
    assert p.tick(p95_ms=150).desired == 2
    assert p.ticks(15, p95_ms=900).desired == 2
    assert "stabilization scale_up" in p.decisions[-1][1].blocked_by[0]
    assert p.tick(p95_ms=900).desired == 4


def test_starting_hosts_count_so_a_long_start_does_not_cascade(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, startup_s=240, **LATENCY, target_utilization=0.5, cooldown={"scale_up": 0})
    assert p.ticks(235, p95_ms=380, utilization=1.0).desired == 4


@pytest.mark.parametrize("window", [60.0, 300.0])
@pytest.mark.parametrize("half_period", [30.0, 90.0])
def test_a_square_wave_turns_at_most_once_per_stabilization_window(
    pool: Callable[..., Any], window: float, half_period: float
) -> None:
    p = pool(
        ready=2, **LATENCY, target_utilization=0.5, cooldown={"scale_up": 0, "scale_down": 0},
        stabilization={"scale_down": window},
    )  # fmt: skip
    for n in range(720):
        high = int(n * p.interval // half_period) % 2 == 0
        demand = 1.8 if high else 0.3
        used = min(1.0, demand / max(1, p.ready))
        p.tick(p95_ms=400 if used > 0.9 else 60, utilization=used)
    turns, last, before = [], 0, p.decisions[0][1].desired
    for at, decision in p.decisions:
        direction = (decision.desired > before) - (decision.desired < before)
        if direction and last and direction != last:
            turns.append(at)
        last, before = direction or last, decision.desired
    assert all(b - a >= window for a, b in itertools.pairwise(turns)), turns


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 86400.0 * 400])
def test_a_clock_jump_acts_on_nothing(pool: Callable[..., Any], jump: float) -> None:
    p = pool(ready=2, **LATENCY, target_utilization=0.5)
    p.tick(p95_ms=900, utilization=1.0)
    assert p.ticks(60, p95_ms=20, utilization=0.05).desired == 4
    p.now += jump
    assert p.ticks(200, p95_ms=20, utilization=0.05).desired == 4
    assert p.ticks(80, p95_ms=20, utilization=0.05).desired == 1, (
        "and afterwards the waiting goes on where it was"
    )


def test_idle_sleeps_after_its_time_and_wakes_for_one_request(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, min_servers=0, **LATENCY, idle={"scale_to_zero": True, "after": "60s"})
    p.tick(p95_ms=100, utilization=0.6, arrivals_per_s=9)
    assert p.ticks(60, **QUIET).desired == 2
    decision = p.tick(**QUIET)
    assert (decision.desired, decision.winner, decision.reason) == (0, "idle", "no requests for 60 s")
    assert p.ticks(600, **QUIET).desired == 0
    assert p.ticks(60, age_s=300).desired == 0, "blind, it sleeps on"
    decision = p.tick(arrivals_per_s=0.1, queued=1, in_flight=0)
    assert (decision.desired, decision.winner) == (1, "idle")
    assert decision.reason == "wakes: 1 waiting and no server runs"


def test_idle_needs_known_silence(pool: Callable[..., Any]) -> None:
    p = pool(ready=1, min_servers=0, **LATENCY, idle={"scale_to_zero": True, "after": "30s"})
    assert p.ticks(600).desired == 1
    assert p.ticks(600, **QUIET, age_s=40).desired == 1
    p.ticks(25, **QUIET)
    p.tick(**{**QUIET, "in_flight": 1})
    assert p.ticks(30, **QUIET).desired == 1
    assert p.tick(**QUIET).desired == 0


def test_idle_without_any_other_policy(pool: Callable[..., Any]) -> None:
    p = pool(ready=0, min_servers=0, idle={"scale_to_zero": True, "after": "30s"})
    assert p.tick(**QUIET).desired == 0
    assert p.tick(**{**QUIET, "queued": 3}).desired == 1
    assert p.ticks(300, arrivals_per_s=5, in_flight=1, queued=0).desired == 1
    assert p.ticks(40, **QUIET).desired == 0


def test_without_the_opt_in_nothing_sleeps(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, min_servers=0, **LATENCY, target_utilization=0.5, **CALM_OFF)
    assert p.ticks(3600, **QUIET, utilization=0.0).desired == 1


def test_a_schedule_s_floor_keeps_an_idle_pool_awake(pool: Callable[..., Any]) -> None:
    p = pool(
        ready=2, min_servers=0, idle={"scale_to_zero": True, "after": "30s"},
        schedules=[{"cron": "* * * * *", "min_servers": 1}],
    )  # fmt: skip
    assert p.ticks(600, **QUIET).desired == 1
