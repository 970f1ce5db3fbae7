"""Tables: one policy, one look, one recommendation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.policies import (
    Decision,
    PolicyState,
    Recommendation,
    ScalingSpec,
    Signal,
    decide,
    predictive,
)
from fleet_controller.policies.decision import Forecast, Look, Timers

T0 = 1_790_000_000.0


def once(scaling: dict[str, Any], current: int, **signal: Any) -> Decision:
    spec = ScalingSpec.model_validate({"max_servers": 50, "stabilization": {"scale_down": 0}, **scaling})
    decision, _ = decide(spec, PolicyState(desired=current, first_at=T0), Signal(**signal), T0)
    return decision


LATENCY = {"latency": {"percentile": 95, "target_ms": 200}}


@pytest.mark.parametrize(
    ("current", "signal", "desired", "reason"),
    [
        (1, {"ready": 1, "p95_ms": 310}, 2, "p95 310 ms over 200 ms"),
        (4, {"ready": 4, "p95_ms": 300}, 6, "p95 300 ms over 200 ms"),
        (4, {"ready": 4, "p95_ms": 9000}, 8, "p95 9000 ms over 200 ms"),  # at most twice
        (4, {"ready": 4, "p95_ms": 201}, 5, "p95 201 ms over 200 ms"),
        (3, {"ready": 1, "starting": 2, "p95_ms": 310}, 3, "p95 310 ms over 200 ms, 2 servers still to come"),
        (
            2,
            {"ready": 2, "p95_ms": 310, "completed": 3, "queued": 0},
            2,
            "p95 310 ms over 200 ms, but from only 3 requests",
        ),
        (2, {"ready": 2, "p95_ms": 310, "completed": 3, "queued": 50}, 4, "p95 310 ms over 200 ms"),
        (3, {"ready": 3, "p95_ms": 150, "utilization": 0.6}, 3, "p95 150 ms under 200 ms"),
        (3, {"ready": 3, "p95_ms": 62, "utilization": 0.1}, 1, "p95 62 ms under 200 ms, 1 server is enough"),
        (
            3,
            {"ready": 3, "p95_ms": 62, "utilization": 0.4},
            2,
            "p95 62 ms under 200 ms, 2 servers are enough",
        ),
        (
            3,
            {"ready": 3, "p95_ms": 150, "utilization": 0.45},
            3,
            "p95 150 ms under 200 ms",
        ),  # 2 would be at 254 ms
        (
            4,
            {"ready": 4, "p95_ms": 62},
            3,
            "p95 62 ms under 200 ms, 3 servers are enough",
        ),  # load unknown: one
        (2, {"ready": 2, "p95_ms": 90}, 2, "p95 90 ms under 200 ms"),
        (3, {"ready": 3}, 3, "no p95 to go by, stays at 3"),
        (
            3,
            {"ready": 3, "arrivals_per_s": 0, "in_flight": 0, "queued": 0},
            1,
            "no requests, 1 server is enough",
        ),
        (3, {"ready": 3, "arrivals_per_s": 0, "in_flight": 2, "queued": 0}, 3, "no p95 to go by, stays at 3"),
    ],
)
def test_latency(current: int, signal: dict[str, Any], desired: int, reason: str) -> None:
    decision = once(LATENCY, current, **signal)
    assert (decision.desired, decision.reason, decision.winner) == (desired, reason, "latency")


def test_another_percentile_is_taken_where_it_is_known_and_the_next_stricter_one_else() -> None:
    scaling = {"latency": {"percentile": 90, "target_ms": 200}}
    assert once(scaling, 1, ready=1, p95_ms=300, percentile_ms=150).desired == 1
    assert once(scaling, 1, ready=1, p95_ms=300).reason == "p95 300 ms over 200 ms"
    above = {"latency": {"percentile": 99.9, "target_ms": 200}}
    assert once(above, 1, ready=1, p99_ms=300, percentile_ms=400).reason == "p99.9 400 ms over 200 ms"


@pytest.mark.parametrize(
    ("current", "signal", "desired", "reason"),
    [
        # Kubernetes' own example: desired = ceil(current x metric / target), 200m against 100m doubles
        (3, {"ready": 3, "utilization": 1.0}, 6, "utilization 1 over 0.5"),
        (3, {"ready": 3, "utilization": 0.54}, 3, "utilization 0.54 is at its target 0.5"),
        (3, {"ready": 3, "utilization": 0.46}, 3, "utilization 0.46 is at its target 0.5"),
        (10, {"ready": 10, "utilization": 0.8}, 16, "utilization 0.8 over 0.5"),
        (10, {"ready": 10, "utilization": 0.25}, 5, "utilization 0.25 under 0.5, 5 servers are enough"),
        (10, {"ready": 10, "utilization": 0.0}, 1, "utilization 0 under 0.5, 1 server is enough"),
        (
            6,
            {"ready": 3, "starting": 3, "utilization": 1.0},
            6,
            "utilization 1 over 0.5, 3 servers still to come",
        ),
        (
            8,
            {"ready": 3, "starting": 3, "utilization": 1.0},
            8,
            "utilization 1 over 0.5, 5 servers still to come",
        ),
        (3, {"ready": 3}, 3, "no utilization to go by, stays at 3"),
        (3, {"ready": 0}, 3, "no server is ready, stays at 3"),
        (3, {"ready": 3, "utilization": math.nan}, 3, "no utilization to go by, stays at 3"),
    ],
)
def test_utilization(current: int, signal: dict[str, Any], desired: int, reason: str) -> None:
    decision = once({"target_utilization": 0.5}, current, **signal)
    assert (decision.desired, decision.reason, decision.winner) == (desired, reason, "utilization")


@pytest.mark.parametrize(
    ("current", "signal", "desired", "reason"),
    [
        (2, {"ready": 2, "queued": 30}, 4, "15 requests wait per server, over 8"),
        (2, {"ready": 2, "queued": 20}, 3, "10 requests wait per server, over 8"),
        (2, {"ready": 2, "queued": 500}, 4, "250 requests wait per server, over 8"),  # at most twice
        (
            4,
            {"ready": 2, "starting": 2, "queued": 30},
            4,
            "15 requests wait per server, over 8, 2 servers still to come",
        ),
        (2, {"ready": 2, "queued": 16}, 2, "8 requests wait per server, 8 may"),
        (
            3,
            {"ready": 3, "queued": 0, "utilization": 0.3},
            2,
            "0 requests wait per server, under 8, 2 servers are enough",
        ),
        (3, {"ready": 3, "queued": 0, "utilization": 0.6}, 3, "0 requests wait per server, 8 may"),
        (3, {"ready": 3}, 3, "no queue length to go by, stays at 3"),
    ],
)
def test_queue(current: int, signal: dict[str, Any], desired: int, reason: str) -> None:
    decision = once({"queue": {"target_per_server": 8}}, current, **signal)
    assert (decision.desired, decision.reason) == (desired, reason)


def test_a_step_rule_waits_for_its_time_and_counts_servers_on_their_way(pool: Callable[..., Any]) -> None:
    steps = [{"when": "p95_ms > 400", "for": "30s", "add": 2}]
    p = pool(ready=1, startup_s=120, min_servers=1, steps=steps, cooldown={"scale_up": "10s"})
    assert p.ticks(30, p95_ms=500).desired == 1
    assert "has to hold 5 s more" in p.decisions[-1][1].recommendations[0].reason
    decision = p.tick(p95_ms=500)
    assert (decision.desired, decision.winner) == (3, "steps[0]")
    assert decision.reason == "p95_ms 500 > 400 for 30 s"
    assert p.ticks(110, p95_ms=500).desired == 3  # the two that start are this rule's answer
    assert p.ticks(20, p95_ms=500).desired == 5  # they came, and it was not enough


def test_a_break_starts_a_step_rule_anew(pool: Callable[..., Any]) -> None:
    p = pool(ready=1, steps=[{"when": "p95_ms > 400", "for": "30s", "add": 2}])
    p.ticks(25, p95_ms=500)
    p.tick(p95_ms=399)
    assert p.ticks(30, p95_ms=500).desired == 1
    assert p.tick().desired == 1  # not known breaks it too
    assert p.ticks(30, p95_ms=500).desired == 1


def test_a_step_rule_removes_only_with_everybody_s_consent() -> None:
    steps = {"steps": [{"when": "utilization < 0.3", "add": -1}]}
    assert once(steps, 4, ready=4, utilization=0.2).desired == 3
    assert once(steps, 1, ready=1, utilization=0.2).desired == 1
    both = once({**steps, **LATENCY}, 4, ready=4, utilization=0.2, p95_ms=199)
    assert (both.desired, both.winner) == (4, "latency")


def predicted(forecast: Forecast | None, **signal: Any) -> Recommendation:
    return predictive.recommend(forecast, 0.5, Look(Signal(**signal), 2, T0, Timers(T0, {})))


def test_a_forecast_needs_a_capacity_and_a_good_record() -> None:
    rising = Forecast(at=T0, level=100.0, trend=1.0)
    known = {"ready": 2, "capacity_rps_per_server": 40.0, "startup_s": 60.0}
    assert predicted(rising, **known) == Recommendation(
        policy="predictive", desired=8, reason="160 requests/s expected in 60 s, 8 servers can carry them"
    )
    assert predicted(rising, ready=2).desired is None
    wrong = rising.model_copy(update={"error": 0.5})
    assert predicted(wrong, **known).reason == "no forecast: its last ones were off by 50%"
    assert predicted(None, **known).desired is None


def test_the_forecast_follows_a_ramp_and_learns_that_noise_cannot_be_foreseen() -> None:
    forecast: Forecast | None = None
    for tick in range(200):
        forecast = predictive.learn(forecast, 10.0 + 0.2 * tick * 5, 60.0, T0 + tick * 5)
    assert forecast is not None
    assert predictive.at(forecast, 60.0) == pytest.approx(10 + 0.2 * 995 + 12, rel=0.1)
    assert forecast.error is not None and forecast.error < predictive.MAX_ERROR
    assert len(forecast.pending) <= 2 * predictive.PENDING
    for tick in range(200, 600):
        forecast = predictive.learn(forecast, 300.0 if tick % 50 < 25 else 5.0, 60.0, T0 + tick * 5)
    assert forecast is not None and forecast.error is not None and forecast.error > predictive.MAX_ERROR


def test_a_forecast_starts_servers_before_the_load_is_there(pool: Callable[..., Any]) -> None:
    scaling: dict[str, Any] = {"target_utilization": 0.5, "predictive": {"enabled": True}}
    p = pool(ready=2, startup_s=60, **scaling)
    for tick in range(60):
        rate = 30 + 0.1 * 5 * tick
        decision = p.tick(
            arrivals_per_s=rate,
            utilization=rate / 40 / max(1, p.ready),
            capacity_rps_per_server=40,
            startup_s=60,
        )
        if decision.winner == "predictive" and decision.desired > 2:
            break
    assert decision.desired == 3
    assert rate < 42  # 2 servers carry 40 requests/s at 0.5


def test_absurd_numbers_overflow_nothing() -> None:
    assert predicted(Forecast(at=T0, level=10.0), ready=2, capacity_rps_per_server=5e-324).desired is None
    assert once({"queue": {"target_per_server": 5e-324}}, 2, ready=2, queued=10).desired == 4
    assert once({"target_utilization": 5e-324}, 2, ready=2, utilization=1.0).desired == 50
