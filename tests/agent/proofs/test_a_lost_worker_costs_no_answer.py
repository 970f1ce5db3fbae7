"""kill -9 and SIGSTOP of the worker under load: every request is answered, and the model is back soon after."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

LONG = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("how", "rounds"),
    [
        pytest.param(signal.SIGKILL, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 3, marks=LONG),
        pytest.param(signal.SIGSTOP, 3, marks=LONG),
    ],
)
def test_every_request_is_answered_and_the_model_is_back(
    start_agent: Callable[..., Any],
    affine: Callable[..., dict[str, Any]],
    load: Callable[..., Any],
    how: signal.Signals,
    rounds: int,
) -> None:
    asked = time.monotonic()
    agent = start_agent(affine(pause_ms=5, max_batch_size_=16)).ready()
    load_s = time.monotonic() - asked
    calm_s = (
        1.0 if rounds == 1 else 21.0
    )  # a worker that ends again so soon after would be started later each time
    # Loading again takes the worker's start and the model's load, as at first, in the company of 32 clients.
    clients = load(agent, kind="closed", seconds=rounds * (2 * load_s + calm_s + 5), connections=32)
    hit: list[float] = []
    for _ in range(rounds):
        time.sleep(calm_s)
        agent.until(lambda: agent.status()["in_flight"] > 0 and agent.status()["state"] == "ready", "busy")
        pid = agent.worker()
        os.kill(pid, how)
        hit.append(time.monotonic())
        agent.until(lambda pid=pid: pid not in agent.group(), "killed")
        agent.ready()
    seen = clients.result()
    answered = Counter(status for _, _, status in seen["story"])
    outages = [
        min(end for _, end, status in seen["story"] if status == 200 and end > at + 0.1) - at for at in hit
    ]
    told = ", ".join(f"{outage:.2f}" for outage in outages)
    print(f"{how.name}: first load {load_s:.2f} s, answered again after {told} s; answers {dict(answered)}")
    assert seen["unanswered"] == 0
    assert not seen["wrong"], seen["wrong"]
    assert set(answered) == {200, 503}
    assert max(outages) <= load_s + 2.0
