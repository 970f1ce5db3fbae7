"""Every answer is the exact function of its own request: three forms, changing crowds, clients that leave in the
middle, requests that fail, and workers that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

LONG = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3000)]


@pytest.mark.parametrize(
    ("requests", "kill_every_s"), [(6_000, None), pytest.param(1_000_000, 25.0, marks=LONG)]
)
def test_every_answer_is_its_requests_own(
    start_agent: Callable[..., Any],
    affine: Callable[..., dict[str, Any]],
    load: Callable[..., Any],
    requests: int,
    kill_every_s: float | None,
) -> None:
    agent = start_agent(affine(max_batch_size_=16)).ready()
    clients = load(agent, kind="mixed", requests=requests, connections=64, seed=requests)
    kills, last = 0, time.monotonic()
    while clients.running:
        time.sleep(0.05)
        if kill_every_s and time.monotonic() - last > kill_every_s:
            agent.ready()
            os.kill(agent.worker(), signal.SIGKILL)
            kills, last = kills + 1, time.monotonic()
    found = clients.result()
    seen = found["seen"]
    print(f"{requests} requests, {kills} workers killed, {found['seconds']:.0f} s: {seen}")
    assert found["wrong"] == 0, found["first"]
    assert sum(seen.values()) == requests
    assert seen["200"] > 0.9 * requests
    assert seen["left"] > 0.005 * requests
    assert seen["500"] > 0.005 * requests
    if not kills:
        assert "unavailable" not in seen
    agent.until(lambda: agent.status()["in_flight"] == agent.status()["queued"] == 0, "settled")
