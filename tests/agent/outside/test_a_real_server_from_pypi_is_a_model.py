"""Mosec (a Rust front and worker processes), installed into an environment of its own, as a model."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bench.peers import interpreter

MODEL = Path(__file__).with_name("mosec_model.py")
METRICS = {"waiting": "mosec_service_remaining_task"}


def descendants(parent: int) -> set[int]:
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] not in "ZX":
            found |= {int(stat.parent.name)} | descendants(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_mosec_is_started_asked_streamed_from_and_stopped(start_agent: Any, outside_model: Any) -> None:
    python = interpreter("mosec-alone", "mosec==0.9.8")
    argv = [str(python), str(MODEL), "--address", "{host}", "--port", "{port}", "--timeout", "20000"]
    model = outside_model("mosec", argv=argv, health="/", paths=["/v1"], metrics=METRICS)
    agent = start_agent(model).ready()
    answer = agent.http.post("/v1/double", json={"numbers": [1, 2.5]})
    assert answer.json() == {"doubled": [2, 5.0]}
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(agent.http.post, "/v1/double", json={"numbers": [n]}) for n in range(200)]
        assert [reply.result().json()["doubled"] for reply in asked] == [[2 * n] for n in range(200)]
    began, came = time.monotonic(), []
    body = {"words": ["one", "two", "three"], "pause_s": 0.2}
    with agent.http.stream("POST", "/v1/words", json=body) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        for line in stream.iter_lines():
            if line.startswith("data:"):
                came.append((line, time.monotonic() - began))
    assert [line for line, _ in came][:3] == ["data: one", "data: two", "data: three"]
    assert came[0][1] < 0.2 <= came[2][1]
    status = agent.status()["models"][0]
    assert (status["ready"], status["completed"]) == (True, 202)
    agent.until(lambda: agent.status()["models"][0]["engine"]["waiting"] == 0, "its own figure read", 5)
    family = descendants(agent.pid)
    assert len(family) >= 4, "warden, coordinator and workers"
    agent.process.terminate()
    assert agent.process.wait(15) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in family), os.popen("ps -ef").read()
