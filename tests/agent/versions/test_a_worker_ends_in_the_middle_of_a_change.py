"""A worker that is killed, or that a load takes down, while versions change: what should be there comes back."""

from __future__ import annotations

import os
import signal
import threading
import time

import httpx
import pytest


def in_background(task):
    replies: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: replies.append(task()))
    thread.start()
    return thread, replies


def error_of(reply):
    return reply.status_code, reply.json()["error"]["message"]


@pytest.mark.slow
def test_a_swap_goes_on_with_the_next_worker_and_the_old_version_answers_first(
    start_agent, numbered, change, states, asking
):
    agent = start_agent(numbered("1", pause_ms=20)).ready()
    slow = numbered("2", pause_ms=20, load_s=3.0)
    with asking(agent, 3) as clients:
        swap, replies = in_background(lambda: change(agent, load=slow))
        agent.until(lambda: states(agent).get("2") == "loading", "loading version 2")
        agent.until(lambda: agent.log().count("is loaded on") == 1, "rid of nothing")
        os.kill(agent.worker(), signal.SIGKILL)
        agent.until(lambda: agent.log().count("is loaded on") == 2, "back with version 1")
        clients.each_saw(5)
        assert states(agent) == {"1": "ready", "2": "loading"}
        assert agent.predict("m", [[0.0]]).headers["x-fleet-model-version"] == "1"
        swap.join()
        assert replies[0].json()["result"] == "switched"
        clients.each_saw(3)
    for seen in clients.answers:
        assert {status for status, _, _ in seen} <= {200, 503}
        versions = [version for status, version, _ in seen if status == 200]
        assert versions == sorted(versions)
        assert versions[-1] == "2"
    assert (
        agent.status()["completed"]
        == sum(status == 200 for seen in clients.answers for status, _, _ in seen) + 1
    )
    agent.until(lambda: states(agent) == {"2": "ready"}, "rid of version 1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status", "says", "restarts"),
    [
        ({"load": "kills"}, 500, "was killed by SIGKILL while loading it, 3 times", 3),
        ({"load_s": 600}, 504, "version 2 was not loaded when the time was over", 1),
    ],
)
def test_a_load_that_kills_or_hangs_the_worker_is_given_up(
    start_agent, numbered, change, states, how, status, says, restarts
):
    agent = start_agent(numbered("1")).ready()
    seconds = 2 if status == 504 else 60
    began = time.monotonic()
    code, message = error_of(change(agent, load=numbered("2", **how), timeout_s=seconds))
    assert (code, says in message) == (status, True), message
    assert "version 1 " in message
    agent.until(lambda: agent.predict("m", [[0.0]]).status_code == 200, "back with version 1")
    assert time.monotonic() - began < 40
    assert agent.predict("m", [[0.0]]).headers["x-fleet-model-version"] == "1"
    assert states(agent) == {"1": "ready", "2": "failed"}
    lines = agent.http.get("/metrics").text.splitlines()
    assert any(
        line.startswith("fleet_agent_worker_restarts_total") and line.endswith(f" {restarts}.0")
        for line in lines
    )
    assert change(agent, load=numbered("3")).json()["result"] == "switched"


@pytest.mark.slow
def test_requests_for_a_leaving_version_survive_its_worker(start_agent, numbered, change, states):
    agent = start_agent(numbered("1", pause_ms=300, max_batch_size_=1)).ready()
    threads = [in_background(lambda: agent.predict("m", [[0.0]])) for _ in range(5)]
    agent.until(lambda: agent.status()["queued"] == 4, "busy")
    assert change(agent, load=numbered("2")).json()["result"] == "switched"
    assert states(agent)["1"] == "unloading"
    os.kill(agent.worker(), signal.SIGKILL)
    for thread, _ in threads:
        thread.join()
    ended = sorted(replies[0].status_code for _, replies in threads)
    assert ended in ([200, 200, 200, 200, 200], [200, 200, 200, 200, 503])
    assert {r[0].headers["x-fleet-model-version"] for _, r in threads if r[0].status_code == 200} == {"1"}
    agent.until(lambda: states(agent) == {"2": "ready"}, "rid of version 1")


@pytest.mark.slow
def test_a_drain_waits_for_no_load(start_agent, numbered, change, states):
    agent = start_agent(numbered("1")).ready()
    thread, replies = in_background(lambda: change(agent, load=numbered("2", load_s=600)))
    agent.until(lambda: states(agent).get("2") == "loading", "loading version 2")
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(timeout=30) == 0
    thread.join()
    code, message = error_of(replies[0])
    assert (code, "draining" in message) == (503, True)
    assert agent.group() == []
