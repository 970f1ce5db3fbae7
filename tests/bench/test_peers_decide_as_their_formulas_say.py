"""Each peer's policy in the scaling bench against examples worked out by hand from its own documentation."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.scaling.peers import (
    Dstack,
    Hpa,
    Knative,
    PredictiveScaling,
    RayServe,
    SkyServe,
    StepScaling,
    TargetTracking,
)

from fleet_controller.window import Signal


def run(policy: Any, seconds: float, start: float = 0.0, **signal: Any) -> int:
    """The number after `seconds` of the same look every 5 s."""
    wanted = 0
    for tick in range(round(seconds / 5)):
        wanted = policy(Signal(**signal), start + 5 * tick).desired
    return wanted


@pytest.mark.parametrize(
    ("ready", "utilization", "desired"),
    [
        (4, 0.75, 6),
        (4, 0.54, 4),
        (4, 0.56, 5),
        (10, 1.0, 20),
        (1, 1.0, 2),
    ],  # ceil(ready x u / 0.5), tolerance 0.1
)
def test_hpa_up(ready: int, utilization: float, desired: int) -> None:
    assert Hpa("utilization", 0.5, 40.0)(Signal(ready=ready, utilization=utilization), 0.0).desired == desired


def test_hpa_waits_five_minutes_for_the_way_down_and_counts_the_unready_as_idle() -> None:
    hpa = Hpa("utilization", 0.5, 40.0)
    assert run(hpa, 5, ready=10, utilization=0.5) == 10
    assert run(hpa, 280, 15.0, ready=10, utilization=0.2) == 10
    assert run(hpa, 60, 310.0, ready=10, utilization=0.2) == 4
    damped = Hpa("requests", 0.5, 40.0)  # 30 requests/s each against 20; two more start
    damped.wanted = 6
    assert damped(Signal(ready=4, starting=2, arrivals_per_s=120.0), 0.0).desired == 6
    assert Hpa("requests", 0.5, 40.0)(Signal(ready=4, arrivals_per_s=120.0), 0.0).desired == 6


def test_hpa_at_most_doubles_or_adds_four_in_a_step() -> None:
    assert Hpa("requests", 0.5, 40.0)(Signal(ready=2, arrivals_per_s=1000.0), 0.0).desired == 6
    assert Hpa("requests", 0.5, 40.0)(Signal(ready=9, arrivals_per_s=1000.0), 0.0).desired == 18


def test_knative_panics_at_twice_its_pods_and_does_not_go_down_in_panic() -> None:
    kpa = Knative(10.0)
    assert run(kpa, 60, ready=4, in_flight=40) == 4
    assert run(kpa, 10, 60.0, ready=4, in_flight=100) == 10  # 100 / 10 >= 2 x 4
    assert run(kpa, 40, 70.0, ready=10, in_flight=10) == 10
    assert run(kpa, 90, 110.0, ready=10, in_flight=10) == 5  # out of panic: no more than halved


def test_ray_serve_waits_30_s_up_and_600_s_down() -> None:
    ray = RayServe(2.0)
    assert run(ray, 5, ready=2, in_flight=4) == 2
    assert run(ray, 25, 5.0, ready=2, in_flight=12) == 2
    assert run(ray, 60, 30.0, ready=2, in_flight=12) == 6
    assert run(ray, 590, 90.0, ready=6, in_flight=4) == 6
    assert run(ray, 60, 680.0, ready=6, in_flight=4) == 2


def test_target_tracking_goes_out_after_three_points_and_in_after_fifteen() -> None:
    tracking = TargetTracking(0.5, 40.0)  # 20 requests/s a host
    assert run(tracking, 180, ready=4, arrivals_per_s=160.0) == 4
    assert run(tracking, 10, 180.0, ready=4, arrivals_per_s=160.0) == 8
    assert run(tracking, 14 * 60, 190.0, ready=8, arrivals_per_s=40.0) == 8
    assert run(tracking, 5 * 60, 190.0 + 14 * 60, ready=8, arrivals_per_s=40.0) == 2


def test_step_scaling_takes_the_step_that_the_breach_is_in() -> None:
    for p95, desired in ((210.0, 12), (280.0, 15), (400.0, 20), (190.0, 10)):
        assert run(StepScaling(200.0), 70, ready=10, p95_ms=p95) == desired


def test_predictive_scaling_needs_a_day_and_is_a_floor_under_target_tracking() -> None:
    day = [20.0] * 12 + [200.0] * 12
    assert PredictiveScaling(0.5, 40.0, day[:10], 0.0)(Signal(ready=2, arrivals_per_s=40.0), 0.0).desired == 2
    predictive = PredictiveScaling(0.5, 40.0, day, 0.0)
    assert predictive(Signal(ready=2, arrivals_per_s=20.0), 0.0).desired == 2
    assert run(predictive, 11 * 3600 + 3290, 5.0, ready=2, arrivals_per_s=20.0) == 1
    assert (
        predictive(Signal(ready=2, arrivals_per_s=20.0), 12 * 3600 - 290.0).desired == 10
    )  # 200 / 20, 300 s ahead


def test_skyserve_and_dstack_wait() -> None:
    sky = SkyServe(0.5, 40.0)
    assert run(sky, 280, ready=2, arrivals_per_s=100.0) == 2  # the 15th decision comes at 280 s
    assert run(sky, 60, 280.0, ready=2, arrivals_per_s=100.0) == 5
    stack = Dstack(0.5, 40.0)
    assert run(stack, 60, ready=2, arrivals_per_s=100.0) == 5
    assert run(stack, 290, 60.0, ready=5, arrivals_per_s=200.0) in (5, 10)
    assert math.isfinite(stack.scaled_at)
