"""The leak guard: a worker is replaced between two batches, and no request notices."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fleet_agent.crew.leak import MEMORY, REQUESTS, LeakGuard
from fleet_wire.agent import RecycleConfig

MIB = 2**20
LEAKING = """
import os

import torch

LOST = []


class Model:
    def load(self, device, options):
        self.megabytes = int(options.get("leaks", 0))

    def preprocess(self, instances):
        if self.megabytes:
            LOST.append(os.urandom(self.megabytes << 20))
        return torch.tensor(instances, dtype=torch.float32)

    def forward(self, batch):
        return batch + 1

    def postprocess(self, outputs):
        return [{"sum": row.sum().item(), "worker": os.getpid()} for row in outputs]
"""


@pytest.mark.parametrize(
    ("config", "held", "answered", "due"),
    [
        ({}, [100, 10**12], 10**9, None),
        ({"after_requests": 10}, [100], 9, None),
        ({"after_requests": 10}, [100], 10, REQUESTS),
        ({"memory_growth_bytes": 50}, [], 0, None),
        ({"memory_growth_bytes": 50}, [100, 149], 0, None),
        ({"memory_growth_bytes": 50}, [100, 150], 0, MEMORY),
        ({"memory_growth_bytes": 50}, [100, 150, 120], 0, None),  # it was no leak
    ],
)
def test_when_it_is_time(config: dict[str, int], held: list[int], answered: int, due: str | None) -> None:
    guard = LeakGuard(RecycleConfig(**config))
    for size in held:
        guard.holds(size)
    guard.answered += answered
    assert guard.due == due
    guard.restarted()
    assert guard.due is None


def test_a_model_that_is_loaded_later_is_no_leak() -> None:
    guard = LeakGuard(RecycleConfig(memory_growth_bytes=50))
    guard.holds(100)
    guard.rebase()
    guard.holds(500)
    assert guard.due is None
    guard.holds(550)
    assert guard.due == MEMORY


def asked(agent: Any, clients: int, each: int) -> list[tuple[int, Any]]:
    """What `clients` at once got for their requests, each with its own number in it."""
    got: list[tuple[int, Any]] = []

    def client(number: int) -> None:
        for turn in range(each):
            value = number * each + turn
            got.append((value, agent.predict("m", [[value]])))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_after_so_many_requests_and_none_is_lost(
    start_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]
) -> None:
    agent = start_agent(written_model("m", LEAKING), recycle={"after_requests": 100}).ready()
    got = asked(agent, clients=4, each=40)
    assert len(got) == 160
    assert {reply.status_code for _, reply in got} == {200}
    rows = [(value, reply.json()["predictions"][0]) for value, reply in got]
    assert all(row["sum"] == value + 1 for value, row in rows)
    assert len({row["worker"] for _, row in rows}) == 2
    status = agent.status()
    assert status["recycles"] == {"requests": 1}
    assert (status["state"], status["errors"]) == ("ready", 0)
    lines = agent.http.get("/metrics").text.splitlines()
    assert 'fleet_agent_worker_recycles_total{reason="requests"} 1.0' in lines
    assert "fleet_agent_worker_restarts_total 0.0" in lines


@pytest.mark.slow
def test_after_its_memory_has_grown(
    start_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]
) -> None:
    growth = 300 * MIB
    model = written_model("m", LEAKING, options={"leaks": 40})
    agent = start_agent(model, recycle={"memory_growth_bytes": growth}).ready()
    first = agent.status()["devices"][0]
    agent.until(
        lambda: agent.predict("m", [[1]]).status_code == 200 and agent.status()["recycles"], "recycled"
    )
    assert agent.status()["recycles"] == {"memory": 1}
    assert agent.predict("m", [[1]]).status_code == 200
    second = agent.status()["devices"][0]
    assert second["worker_pid"] != first["worker_pid"]
    agent.until(lambda: agent.status()["devices"][0]["worker_bytes"], "weighed")
    assert agent.status()["devices"][0]["worker_bytes"] < first["worker_bytes"] + growth
