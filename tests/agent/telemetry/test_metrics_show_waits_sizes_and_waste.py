"""Histograms of waits, batch sizes, batches and answers, and what was computed for nobody."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_agent.queue.waits import Waits
from fleet_wire.histogram import LatencyHistogram

SLOW = """
import time


class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]

    def load(self, device, options):
        pass

    def forward(self, batch):
        time.sleep(0.4)
        return batch
"""


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=3000))
def test_waits_are_counted_as_one_by_one(seconds: list[float]) -> None:
    waits, plain = Waits(), LatencyHistogram()
    for at in range(0, len(seconds), 7):
        waits.add(seconds[at : at + 7])
    plain.record_all(value * 1000.0 for value in seconds)
    assert waits.histogram.count == plain.count
    assert waits.histogram.sum_ms == pytest.approx(plain.sum_ms)
    # on the edge between two buckets a logarithm may be rounded either way
    near = {index + by for index in plain.counts for by in (-1, 0, 1)}
    assert set(waits.histogram.counts) <= near


def figures(agent: Any) -> dict[str, float]:
    text = agent.http.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(fleet_\S+) (\S+)$", text, re.MULTILINE)}


def test_waits_sizes_and_what_nobody_waited_for(
    start_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]
) -> None:
    agent = start_agent(written_model("m", SLOW, max_batch_size=4)).ready()
    threads = [threading.Thread(target=agent.predict, args=("m", [[1.0]])) for _ in range(1)]
    threads[0].start()
    agent.until(lambda: agent.status()["in_flight"] == 1, "computing")
    threads += [threading.Thread(target=agent.predict, args=("m", [[1.0]])) for _ in range(6)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    seen = figures(agent)
    of = 'model="m",version="1"'
    assert seen[f"fleet_agent_batch_size_count{{{of}}}"] == 3.0  # 1, 4 and the 2 that were left
    assert seen[f"fleet_agent_batch_size_sum{{{of}}}"] == 7.0
    assert seen[f'fleet_agent_batch_size_bucket{{le="2.0",{of}}}'] == 2.0
    assert seen[f"fleet_agent_queue_wait_seconds_count{{{of}}}"] == 7.0
    assert seen[f'fleet_agent_queue_wait_seconds_bucket{{le="0.05",{of}}}'] == 1.0  # all others waited
    assert seen[f"fleet_agent_batch_duration_seconds_count{{{of}}}"] == 3.0
    assert seen[f"fleet_agent_request_duration_seconds_count{{{of}}}"] == 7.0
    assert 1.0 < seen[f"fleet_agent_queue_wait_seconds_sum{{{of}}}"] < 6.0
    assert seen[f"fleet_agent_unwanted_items_total{{{of}}}"] == 0.0
    with httpx.Client(base_url=agent.url, timeout=0.2) as impatient:
        try:
            impatient.post("/v1/models/m:predict", json={"instances": [[1.0], [2.0]]})
        except httpx.ReadTimeout:
            pass
    agent.until(lambda: figures(agent)[f"fleet_agent_unwanted_items_total{{{of}}}"] == 2.0, "counted")
