"""Batches are timed when a model is loaded; with the latency target that makes a capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_agent.queue.batcher import Batcher
from fleet_agent.queue.capacity import Capacity
from fleet_agent.queue.curve import ServiceCurve
from fleet_wire.capacity import ModelLoad, pool_capacity

STEPS = """
import time


class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]

    def load(self, device, options):
        self.base, self.each = float(options["base"]), float(options["each"])
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        slow = 0.5 if self.calls == 1 else 0.0  # the first call builds something
        time.sleep(self.base + self.each * len(batch) + slow)
        return batch

    def warmup(self):
        return [[1.0]]
"""


def test_seeds_are_shown_until_their_sizes_are_measured() -> None:
    curve = ServiceCurve()
    curve.seed([(1, 0.010), (2, 0.011), (4, 0.013), (8, 0.017)])
    assert curve.points() == [(1, 0.010), (2, 0.011), (4, 0.013), (8, 0.017)]
    for _ in range(5):
        curve.observed(4, 0.026)
    points = dict(curve.points())
    assert points[4] == pytest.approx(0.026)
    assert points[1] == pytest.approx(0.020)  # at the pace that was measured
    assert points[8] == pytest.approx(0.034)
    for size in (1, 2, 8):
        for _ in range(5):
            curve.observed(size, 0.001 * size)
    assert dict(curve.points())[8] == pytest.approx(0.008)


def test_measured_sizes_outlive_a_new_worker_s_seeds() -> None:
    curve = ServiceCurve()
    for _ in range(5):
        curve.observed(1, 0.010)
    curve.seed([(1, 0.5), (2, 0.6)])
    points = dict(curve.points())
    assert points[1] == pytest.approx(0.010)
    assert points[2] == pytest.approx(0.012)


def test_a_seed_refuses_no_first_request() -> None:
    curve = ServiceCurve()
    curve.seed([(1, 30.0), (32, 300.0)])
    batcher: Batcher[int, int] = Batcher(32, seconds=curve.seconds)
    batcher.add(1, 1, now=100.0, deadline=100.2)
    batch = batcher.take(100.0).batch
    assert batch is not None
    batcher.add(2, 1, now=100.1, deadline=100.3)  # while the first one runs, longer than was said


def test_the_estimate_is_the_controller_s() -> None:
    loads = [ModelLoad("m", 100, 100, 32, ((1, 0.010), (32, 0.041)))]
    capacity = Capacity(200.0, 95.0)
    assert capacity.rps(lambda: loads, 0.0) == pool_capacity([loads], 200.0, 95.0)
    assert capacity.rps(lambda: [], 1.9) == pool_capacity([loads], 200.0, 95.0)
    assert capacity.rps(lambda: [], 2.0) is None
    assert Capacity(None, 95.0).rps(lambda: loads, 0.0) is None


def test_a_model_is_timed_when_it_is_loaded(
    start_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]
) -> None:
    quick = written_model("quick", STEPS, options={"base": 0.01, "each": 0.0005}, max_batch_size=20)
    slow = written_model("slow", STEPS, options={"base": 0.4, "each": 0.0}, max_batch_size=32)
    agent = start_agent(quick, slow, latency_target_ms=2000.0).ready()
    status = agent.status()
    assert (status["completed"], status["models"][0]["items"]) == (0, 0)
    curves = {model["name"]: dict(model["service_curve"]) for model in status["models"]}
    assert list(curves["quick"]) == [1, 2, 4, 8, 16, 20]
    for size, seconds in curves["quick"].items():
        assert 0.01 + 0.0005 * size <= seconds < 0.4  # without the first, slow call
    assert list(curves["slow"]) == [1]  # two runs of 1 and two of 2 would take longer than 1.5 s
    loads = [
        ModelLoad(m["name"], 0, 0, m["max_batch_size"], tuple((n, s) for n, s in m["service_curve"]))
        for m in status["models"]
    ]
    expected = pool_capacity([loads], 2000.0, 95.0)
    assert expected is not None
    assert status["capacity_rps"] == expected
    lines = agent.http.get("/metrics").text.splitlines()
    assert f"fleet_agent_capacity_requests_per_second {expected}" in lines
    assert agent.predict("quick", [[1.0]], x_request_timeout_ms="5000").status_code == 200
