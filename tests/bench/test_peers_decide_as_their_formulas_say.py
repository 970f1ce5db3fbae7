"""Each peer's policy in the scaling bench against examples worked out by hand from its own documentation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.scaling.peers import (
    Dstack,
    Growth,
    Hpa,
    Knative,
    Look,
    PredictiveScaling,
    RayServe,
    SkyServe,
    StaticPeak,
    StepScaling,
    TargetTracking,
)


class Pool:
    """What a peer sees of a pool with constant traffic, looked at as often as the peer looks. `rps` come in, and
    `concurrency` requests are there."""

    def __init__(self, peer: Any) -> None:
        self.peer, self.now, self.arrived, self.stayed_s, self.wanted = peer, 0.0, 0.0, 0.0, 0

    def until(self, now: float, *, rps: float = 0.0, concurrency: float = 0.0, **look: Any) -> int:
        """All looks before `now`; what the last of them wanted."""
        while self.now < now:
            self.wanted = self.peer(
                Look(arrived=round(self.arrived), stayed_s=self.stayed_s, **look), self.now
            )
            self.now += self.peer.period_s
            self.arrived += rps * self.peer.period_s
            self.stayed_s += concurrency * self.peer.period_s
        return self.wanted


def test_a_rate_is_what_came_in_its_window() -> None:
    arrivals = Growth(60.0)
    assert arrivals.add(0.0, 100.0) is None  # one look is no rate
    assert arrivals.add(20.0, 300.0) == 10.0  # (300 - 100) / 20 s
    assert arrivals.add(60.0, 700.0) == 10.0
    assert arrivals.add(80.0, 2700.0) == 40.0  # since 20 s: (2700 - 300) / 60 s
    assert arrivals.add(120.0, 2700.0) == pytest.approx(2000 / 60)  # since 60 s: (2700 - 700) / 60 s


@pytest.mark.parametrize(
    ("ready", "utilization", "desired"),
    [
        (4, 0.75, 6),  # ratio 1.5: ceil(6.0)
        (4, 0.54, 4),  # ratio 1.08: within the tolerance of 0.1
        (4, 0.56, 5),  # ratio 1.12: ceil(4.48)
        (10, 1.0, 20),  # ratio 2: ceil(20.0), which +100 % allows
        (1, 1.0, 2),  # ratio 2: ceil(2.0)
    ],
)
def test_hpa_up(ready: int, utilization: float, desired: int) -> None:
    look = Look(ready=ready, reporting=ready, utilization=utilization)
    assert Hpa("utilization", 0.5, 40.0)(look, 0.0) == desired


def test_hpa_waits_five_minutes_for_the_way_down() -> None:
    pool = Pool(Hpa("utilization", 0.5, 40.0))
    assert pool.until(15, ready=10, reporting=10, utilization=0.5) == 10  # at 0 s: ratio 1, so 10
    assert pool.until(300, ready=10, reporting=10, utilization=0.2) == 10  # the 10 of 0 s is in the window
    assert pool.until(315, ready=10, reporting=10, utilization=0.2) == 4  # at 300 s it is not: ceil(0.4 x 10)


def test_hpa_counts_the_unready_as_idle_on_the_way_up() -> None:
    hpa = Hpa("requests", 0.5, 40.0)  # 20 requests/s a pod
    assert (
        hpa.propose(6, ready=4, reporting=4, mean=30.0) == 6
    )  # 1.5; with two at 0: 120 / 6 / 20 = 1.0, tolerated
    assert (
        hpa.propose(6, ready=4, reporting=4, mean=60.0) == 12
    )  # 3.0; with two at 0: 240 / 6 / 20 = 2.0, 2 x 6
    assert (
        hpa.propose(9, ready=4, reporting=4, mean=30.0) == 9
    )  # 1.5; with five at 0: 120 / 9 / 20 = 0.67, crosses 1
    assert hpa.propose(4, ready=4, reporting=4, mean=30.0) == 6  # none starts: ceil(1.5 x 4)
    assert (
        hpa.propose(6, ready=4, reporting=4, mean=10.0) == 2
    )  # down, the unready don't count: ceil(0.5 x 4)


def test_hpa_counts_pods_without_a_metric_against_the_change() -> None:
    hpa = Hpa("utilization", 0.5, 40.0)
    assert (
        hpa.propose(4, ready=4, reporting=3, mean=0.75) == 5
    )  # 1.5; the fourth at 0: 4.5 / 4 = 1.125, ceil(4.5)
    assert hpa.propose(4, ready=4, reporting=2, mean=0.6) == 4  # 1.2; two at 0: 2.4 / 4 = 0.6, crosses 1
    assert hpa.propose(4, ready=4, reporting=2, mean=0.2) == 3  # 0.4; two on target: 2.8 / 4 = 0.7, ceil(2.8)
    assert hpa.propose(4, ready=4, reporting=0, mean=None) == 4


def test_hpa_at_most_doubles_or_adds_four_in_a_step() -> None:
    for ready, desired in ((2, 6), (9, 18)):  # max(2 x 2, 2 + 4) and max(2 x 9, 9 + 4); it wants far more
        pool = Pool(Hpa("requests", 0.5, 40.0))
        pool.until(15, rps=1000.0, ready=ready)  # at 0 s there is no rate yet
        assert pool.until(30, rps=1000.0, ready=ready) == desired


def test_knative_panics_at_twice_its_pods_and_does_not_go_down_in_panic() -> None:
    pool = Pool(Knative(10.0))
    assert pool.until(120, concurrency=40, ready=4) == 4  # ceil(40 / 10)
    # at 122 s: over 6 s (4 x 40 + 2 x 120) / 6 = 66.7, 7 pods < 2 x 4; over 60 s (58 x 40 + 2 x 120) / 60 = 42.7
    assert pool.until(124, concurrency=120, ready=4) == 5
    # at 124 s: over 6 s (2 x 40 + 4 x 120) / 6 = 93.3, 10 pods >= 2 x 4: panic, the larger of the two
    assert pool.until(126, concurrency=120, ready=4) == 10
    assert pool.until(128, concurrency=120, ready=4) == 12  # at 126 s: 120 / 10
    assert (
        pool.until(188, concurrency=10, ready=12) == 12
    )  # at 186 s, 60 s after the last such moment, it still holds
    assert pool.until(190, concurrency=10, ready=12) == 6  # over: ceil(10 / 10), but no more than halved


def test_knative_is_not_in_panic_below_twice_its_pods() -> None:
    pool = Pool(Knative(10.0))
    assert pool.until(62, concurrency=70, ready=4) == 7  # 7 / 4 < 2: the mean over 60 s says 7
    assert pool.peer.panicked_at == 0.0  # the panic it began in, with more than one pod ready
    assert pool.until(64, concurrency=70, ready=4) == 7
    assert pool.peer.panicked_at is None


def test_knative_begins_in_panic_and_so_keeps_what_is_there() -> None:
    pool = Pool(Knative(10.0))
    assert pool.until(60, concurrency=10, ready=8) == 8
    assert pool.until(64, concurrency=10, ready=8) == 4  # then ceil(10 / 10), but no more than halved
    lone = Pool(Knative(10.0))
    assert (
        lone.until(10, concurrency=15, ready=1) == 2
    )  # one pod: no panic at the start, and 2 / 1 begins one
    assert lone.peer.panicked_at == 8.0


def test_ray_serve_waits_30_s_up_and_600_s_down() -> None:
    pool = Pool(RayServe(2.0))
    assert pool.until(60, concurrency=4, ready=2) == 2  # 4 / 2
    # 12 from 60 s on: what is sent at 70 s is (20 x 4 + 10 x 12) / 30 = 6.7, 4 hosts; the 30 s begin there
    assert pool.until(100, concurrency=12, ready=2) == 2
    assert pool.until(105, concurrency=12, ready=2) == 6  # at 100 s: 12 / 2
    # 4 from 105 s on: sent at 110 s (25 x 12 + 5 x 4) / 30 = 10.7, still 6; at 120 s (15 x 12 + 15 x 4) / 30 = 8, 4
    assert pool.until(720, concurrency=4, ready=6) == 6  # 600 s from 120 s
    assert pool.until(725, concurrency=4, ready=6) == 2  # at 720 s: 4 / 2


def test_target_tracking_goes_out_after_three_points_and_in_after_fifteen() -> None:
    pool = Pool(TargetTracking(0.5, 40.0))  # 20 requests/s a host
    assert pool.until(180, rps=160.0, ready=4) == 4  # points at 60 and 120 s: 40 each, two of three
    assert pool.until(240, rps=160.0, ready=4) == 8  # the third at 180 s: ceil(4 x 40 / 20)
    # 40 requests/s on 8 hosts: 5 each, under 0.9 x 20. The point at 240 s is the last of 160 / 8 = 20.
    assert pool.until(1140, rps=40.0, ready=8) == 8  # from 300 s to 1080 s: fourteen points
    assert pool.until(1200, rps=40.0, ready=8) == 2  # the fifteenth at 1140 s: ceil(8 x 5 / 20)


def test_target_tracking_counts_what_it_added_in_its_cooldown() -> None:
    pool = Pool(TargetTracking(0.5, 40.0))
    assert pool.until(240, rps=160.0, ready=4) == 8
    assert pool.until(300, rps=160.0, ready=4, starting=4) == 8  # 160 / 20 = 8 are wanted already
    assert pool.until(420, rps=240.0, ready=4, starting=4) == 12  # more than those: 240 / 20, at once


def test_step_scaling_takes_the_step_that_the_breach_is_in() -> None:
    # target 200 ms: over 1.0, 1.3 and 1.8 times it +20 %, +50 %, +100 % of 10; under it nothing
    for p95, desired in ((210.0, 12), (280.0, 15), (400.0, 20), (190.0, 10)):
        assert StepScaling(200.0)(Look(ready=10, p95_ms=p95), 0.0) == desired


def test_step_scaling_counts_warming_hosts_towards_the_same_step_and_goes_in_one_by_one() -> None:
    pool = Pool(StepScaling(200.0))
    assert pool.until(60, ready=10, p95_ms=280.0) == 15
    assert pool.until(120, ready=10, starting=5, p95_ms=280.0) == 15  # 10 + 5 are wanted already
    assert pool.until(180, ready=10, starting=5, p95_ms=400.0) == 20  # 10 + 10
    assert pool.until(1020, ready=20, p95_ms=60.0) == 20  # fourteen points under 200 / 3, from 180 s on
    assert pool.until(1080, ready=20, p95_ms=60.0) == 19
    assert pool.until(1320, ready=19, p95_ms=60.0) == 19  # cooldown 300 s from 1020 s
    assert pool.until(1380, ready=19, p95_ms=60.0) == 18


def test_predictive_scaling_needs_a_day_and_is_a_floor_under_target_tracking() -> None:
    day = [20.0] * 12 + [200.0] * 12
    half = PredictiveScaling(0.5, 40.0, day[:10], 0.0)
    assert half.forecast(0, 12) == 0.0
    predictive = Pool(PredictiveScaling(0.5, 40.0, day, 0.0))
    assert predictive.until(60, rps=20.0, ready=2) == 2  # the same hour of the only day before: 20 / 20 = 1
    assert predictive.until(12 * 3600 - 300, rps=20.0, ready=2) == 1
    # 300 s before the 13th hour: its forecast is 200, by 20 a host
    assert predictive.until(12 * 3600 - 240, rps=20.0, ready=2) == 10


def test_predictive_scaling_follows_the_growth_of_the_last_day() -> None:
    days = [100.0] * 24 + [150.0] * 24
    # the same hour's mean (125) times last 24 h over the days before (3600 / 2400 = 1.5)
    assert PredictiveScaling(0.5, 40.0, days, 0.0).forecast(0, 3) == 187.5


def test_skyserve_decides_after_fifteen_that_agree() -> None:
    pool = Pool(SkyServe(0.5, 40.0))  # 20 requests/s a host
    assert pool.until(300, rps=100.0, ready=2) == 2  # decisions at 20, 40 .. 280 s: fourteen
    assert pool.until(320, rps=100.0, ready=2) == 5  # 300 / 20 = 15 of them: ceil(100 / 20)
    # 20 from 320 s on: at 340 s (40 x 100 + 20 x 20) / 60 = 73, 4 hosts; the 60th (1200 / 20) decision is at 1520 s
    assert pool.until(1520, rps=20.0, ready=5) == 5
    assert pool.until(1540, rps=20.0, ready=5) == 1  # 20 / 20


def test_dstack_waits_from_its_last_scaling_on() -> None:
    pool = Pool(Dstack(0.5, 40.0))
    assert pool.until(20, rps=100.0, ready=2) == 5  # never scaled: at once, at 10 s; ceil(100 / 20)
    assert pool.until(310, rps=200.0, ready=5) == 5  # 300 s from 10 s
    assert pool.until(320, rps=200.0, ready=5) == 10
    assert pool.until(910, rps=40.0, ready=10) == 10  # 600 s from 310 s
    assert pool.until(920, rps=40.0, ready=10) == 2


def test_static_is_static() -> None:
    assert StaticPeak(7)(Look(ready=1, arrived=10_000), 0.0) == 7
