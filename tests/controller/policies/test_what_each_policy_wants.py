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
    arrivals,
    budget,
    calm,
    decide,
    predictive,
    profile,
)
from fleet_controller.policies.decision import Look, Timers
from fleet_controller.spec.scaling import Cooldown, LatencyTarget

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


def predicted(rates: list[float], **signal: Any) -> Recommendation:
    """What the forecast says after a look a minute at `rates`; a server carries half of its capacity of 40/s."""
    seen: arrivals.Arrivals | None = None
    for minute, rate in enumerate(rates):
        seen = arrivals.seen(seen, rate, T0 + 60 * minute)
    now = T0 + 60 * (len(rates) - 1)
    look = Look(Signal(arrivals_per_s=rates[-1] if rates else None, **signal), 2, now, Timers(now, {}))
    spec = ScalingSpec.model_validate({"target_utilization": 0.5, "predictive": {"enabled": True}})
    return predictive.recommend(seen, predictive.capacity(spec, None, look.signal), None, look)


def test_a_forecast_needs_arrivals_and_a_capacity() -> None:
    known = {"ready": 2, "capacity_rps_per_server": 40.0, "startup_s": 60.0}
    assert predicted([], **known).reason == "no forecast: arrivals are not known yet"
    unknown = predicted([30.0] * 90, ready=2)
    assert (unknown.desired, unknown.reason) == (
        None,
        "no forecast: what one server can do is not learned yet",
    )
    assert predicted([30.0] * 600, **known) == Recommendation(
        policy="predictive", desired=2, reason="30 requests/s, 2 servers can carry what may come"
    )


def test_bursts_at_the_same_minute_of_the_hour_are_met_by_servers_that_are_ready_then() -> None:
    days = [150.0 if minute % 60 in (31, 32, 33, 34) else 30.0 for minute in range(3 * 1440)]
    known = {"ready": 2, "capacity_rps_per_server": 40.0, "startup_s": 60.0}
    wanted = {m: predicted(days[: 2 * 1440 + m + 1], **known).desired for m in (10, 25, 30)}
    assert wanted[10] == wanted[25] == 2
    assert wanted[30] is not None and wanted[30] >= 8  # 150 requests/s, 20 a server


def test_a_sudden_silence_is_not_the_end_of_the_load() -> None:
    known = {"ready": 2, "capacity_rps_per_server": 40.0, "startup_s": 60.0}
    quiet = predicted([38.0] * 300 + [0.0] * 5, **known)
    assert quiet.desired == 2
    assert predicted([38.0] * 300 + [0.0] * 70, **known).desired == 1


def test_bursts_that_no_scaling_can_meet_are_told_with_the_floor_that_would() -> None:
    seen: arrivals.Arrivals | None = None
    for minute in range(200):
        seen = arrivals.seen(seen, 200.0 if minute % 17 in (3, 4) else 5.0, T0 + 60 * minute)
    look = Look(Signal(ready=2, arrivals_per_s=5.0, startup_s=240), 2, T0 + 60 * 199, Timers(T0, {}))
    can, spent = predictive.Capacity(20.0), budget.Budget(at=T0, requests=1000, late=80)
    reason = predictive.recommend(seen, can, spent, look).reason
    assert reason.endswith(
        "8.0% were late, which scaling can't help: bursts rise faster than a server starts (240 s): "
        "84% of the load came so; min_servers 10 would hold the target"
    )
    held = budget.Budget(at=T0, requests=1000, late=1)  # held, by keeping what the last bursts needed
    said = predictive.recommend(seen, can, held, look).reason
    assert "were late" not in said and "min_servers 10 would hold the target" in said


def test_a_pool_whose_load_jumps_keeps_what_the_last_quarter_of_an_hour_needed() -> None:
    def wanted(minutes_since: int, patient: bool) -> int | None:
        seen: arrivals.Arrivals | None = None
        for minute in range(121 + minutes_since):
            jump = minute % 30 < 2 and minute <= 121
            seen = arrivals.seen(seen, 200.0 if jump else 5.0, T0 + 60 * minute)
        at = T0 + 60 * (120 + minutes_since)
        look = Look(Signal(ready=12, arrivals_per_s=5.0, startup_s=240), 12, at, Timers(at, {}))
        return predictive.recommend(seen, predictive.Capacity(20.0), None, look, patient).desired

    assert wanted(10, patient=True) == 12  # 200 requests/s and a margin
    assert (wanted(10, patient=False) or 0) < 12
    assert (wanted(25, patient=True) or 0) < 12


def test_a_new_pool_keeps_what_it_has_for_some_minutes() -> None:
    def wanted(minutes: int, patient: bool) -> int | None:
        seen: arrivals.Arrivals | None = None
        for minute in range(minutes + 1):
            seen = arrivals.seen(seen, 20.0, T0 + 60 * minute)
        at = T0 + 60 * minutes
        look = Look(Signal(ready=9, arrivals_per_s=20.0, startup_s=60), 9, at, Timers(at, {}))
        return predictive.recommend(seen, predictive.Capacity(20.0), None, look, patient).desired

    assert wanted(5, patient=True) == 9
    assert (wanted(5, patient=False) or 9) < 9
    assert (wanted(12, patient=True) or 9) < 9


def test_steep_is_what_no_server_that_ran_before_could_have_carried() -> None:
    def share(rates: list[float]) -> float:
        seen: arrivals.Arrivals | None = None
        for minute, rate in enumerate([*rates, 0.0]):
            seen = arrivals.seen(seen, rate, 3600.0 * 1000 + 60 * minute)
        assert seen is not None
        return arrivals.steep(seen, 2)

    assert share([10.0] * 120) == 0.0
    assert share([10.0] * 50) == 0.0  # no whole hour yet
    # one minute of 100 an hour: 100 of 690; the minute after it is no surprise any more
    assert share(([10.0] * 30 + [100.0] + [10.0] * 29) * 2) == pytest.approx(100 / 690, abs=0.005)
    # grows by half a minute: after two minutes more than twice, but not of the six before
    assert share([10.0 * 1.3**n for n in range(30)] + [10.0] * 30) == 0.0


def test_with_a_forecast_only_growth_starts_the_pause_before_shrinking() -> None:
    state = PolicyState(desired=5, last_up_at=T0 - 400, last_down_at=T0 - 10)
    unnamed = ScalingSpec.model_validate({"max_servers": 9, "latency": {"target_ms": 100}})
    named = unnamed.model_copy(update={"cooldown": Cooldown.model_validate({"scale_down": 300})})
    assert calm.down_left(unnamed, state, T0, foreseen=True) == 0.0
    assert calm.down_left(unnamed, state, T0, foreseen=False) == 290.0
    assert calm.down_left(named, state, T0, foreseen=True) == 290.0
    grown = state.model_copy(update={"last_up_at": T0 - 100})
    assert calm.down_left(unnamed, grown, T0, foreseen=True) == 200.0


def test_what_a_server_carries_is_read_off_the_line_that_latency_draws() -> None:
    target = LatencyTarget.model_validate({"target_ms": 500})
    learned: profile.Profile | None = None
    for tick in range(600):
        load = 24 + 6 * math.sin(tick / 40)  # a server; 1 / p99 = (48 - load) / 5000
        p99 = 5000 / (48 - load)
        signal = Signal(
            ready=10, rps=10 * load, arrivals_per_s=10 * load, p50_ms=0.7 * p99, p99_ms=p99, completed=900
        )
        learned = profile.learn(learned, target, signal, T0 + 5 * tick)
    assert learned is not None
    found = learned.load(500)
    assert found is not None
    # p99 = 0.92 x 500 ms at 37.1 requests/s a server, of ten
    assert profile.carried(found, 10) == pytest.approx(371, rel=0.03)
    assert profile.Profile.model_validate_json(learned.model_dump_json()) == learned


def test_a_load_that_was_late_is_not_believed_again() -> None:
    target = LatencyTarget.model_validate({"target_ms": 500})
    learned: profile.Profile | None = None
    for tick in range(400):  # a cliff at 40: no line says so
        load = 30.0 if tick < 200 else 41.0
        p99 = 150.0 if load < 40 else 900.0
        signal = Signal(
            ready=10, rps=10 * load, arrivals_per_s=10 * load, p50_ms=0.7 * p99, p99_ms=p99, completed=900
        )
        learned = profile.learn(learned, target, signal, T0 + 5 * tick)
    assert learned is not None
    assert (learned.load(500) or 0) <= 41 * profile.pooled(10)


def test_a_pool_with_a_latency_target_grows_before_the_load_does(pool: Callable[..., Any]) -> None:
    p = pool(ready=2, startup_s=60, latency={"percentile": 99, "target_ms": 500})
    for tick in range(360):
        rate = 40 + 0.02 * 5 * tick
        load = rate / max(1, p.ready)
        p99 = 5000 / max(1.0, 48 - load)
        decision = p.tick(
            arrivals_per_s=rate, rps=rate, p50_ms=0.7 * p99, p95_ms=0.9 * p99, p99_ms=p99, completed=900,
            in_flight=3, queued=0, startup_s=60,
        )  # fmt: skip
        assert p99 <= 500, (tick, rate, p.ready)
    assert decision.winner in ("predictive", "latency")
    assert 2 <= decision.desired <= 5  # 76 requests/s, some 36 a server


def test_absurd_numbers_overflow_nothing() -> None:
    assert predicted([10.0] * 90, ready=2, capacity_rps_per_server=5e-324).desired is None
    assert predicted([1e12] * 90, ready=2, capacity_rps_per_server=1e-5).desired is not None
    assert once({"queue": {"target_per_server": 5e-324}}, 2, ready=2, queued=10).desired == 4
    assert once({"target_utilization": 5e-324}, 2, ready=2, utilization=1.0).desired == 50
