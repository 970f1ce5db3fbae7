"""Start, drain, crash, kill: the agent's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

SUICIDAL = """
import os
import signal

class Model:
    def load(self, device, options):
        if options.get("while_loading"):
            os.kill(os.getpid(), signal.SIGKILL)

    def preprocess(self, instances):
        return instances

    def forward(self, batch):
        os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_it_listens_before_its_models_are_loaded(start_agent, written_model):
    slow = written_model(
        "slow", "import time\ntime.sleep(1)\nclass Model:\n    load = forward = lambda *a: None"
    )
    agent = start_agent(slow)
    run = json.loads(agent.run_file.read_text())
    assert run["pid"] == agent.pid
    assert agent.url.endswith(f":{run['port']}")
    assert run["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (
        str(run["start_ticks"]) == Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[19]
    )
    assert agent.http.get("/healthz").status_code == 200
    loading = agent.http.get("/readyz")
    assert (loading.status_code, loading.json()["error"]["code"]) == (503, "unavailable")
    assert loading.json()["error"]["message"] in ("starting the worker of cpu", "loading model slow")
    assert agent.predict("slow", [1]).status_code == 503
    assert agent.status()["state"] == "loading"
    agent.ready()
    assert agent.status()["load_s"] > 1


def test_sigterm_finishes_what_is_in_flight_and_takes_nothing_new(start_agent, tiny_model):
    agent = start_agent(tiny_model(delay_ms=900, max_batch_size_=1)).ready()
    with ThreadPoolExecutor(3) as pool, httpx.Client(base_url=agent.url) as other:
        asked = [pool.submit(agent.predict, "tiny", [[1, 2, 3, 4]]) for _ in range(3)]
        agent.until(lambda: agent.status()["queued"] == 2, "queued")
        os.killpg(agent.pid, signal.SIGTERM)  # the whole group, as the controller does
        agent.until(lambda: other.get("/readyz").status_code == 503, "draining")
        refused = other.post("/v1/models/tiny:predict", json={"instances": [[1, 2, 3, 4]]})
        assert refused.status_code == 503
        assert "draining" in refused.json()["error"]["message"]
        assert [reply.result().status_code for reply in asked] == [200] * 3
    assert agent.process.wait(10) == 0
    assert agent.group() == []


@pytest.mark.slow
def test_the_drain_timeout_ends_a_drain(start_agent, tiny_model):
    agent = start_agent(tiny_model(delay_ms=1500), drain_timeout_s=0.3).ready()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(agent.predict, "tiny", [[1, 2, 3, 4]])
        agent.until(lambda: agent.status()["in_flight"] == 1, "running")
        agent.process.terminate()
        assert asked.result().status_code == 503
    assert agent.process.wait(10) == 0
    assert agent.group() == []


@pytest.mark.slow
def test_a_second_signal_stops_at_once(start_agent, tiny_model):
    agent = start_agent(tiny_model(delay_ms=4000)).ready()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: agent.predict("tiny", [[1, 2, 3, 4]]).status_code)
        agent.until(lambda: agent.status()["in_flight"] == 1, "running")
        started = time.monotonic()
        agent.process.terminate()
        agent.until(lambda: agent.http.get("/readyz").status_code == 503, "draining")
        agent.process.terminate()
        assert agent.process.wait(10) == 1
        assert time.monotonic() - started < 3
        assert asked.result() == 503
    assert agent.group() == []


@pytest.mark.slow
def test_a_killed_worker_costs_only_what_it_computed_and_comes_back(start_agent, tiny_model, written_model):
    models = [tiny_model(delay_ms=900, max_batch_size_=1), written_model("suicidal", SUICIDAL)]
    agent = start_agent(*models).ready()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(agent.predict, "tiny", [[1, 2, 3, 4]]) for _ in range(3)]
        agent.until(lambda: agent.status()["queued"] == 2, "queued")
        old = agent.worker()
        os.kill(old, signal.SIGKILL)
        # It is not ready before it knows why: the end of the socket is heard before that of the process.
        agent.until(lambda: agent.http.get("/readyz").status_code == 503, "not ready")
        agent.until(lambda: "SIGKILL" in agent.http.get("/readyz").json()["error"]["message"], "why", 10)
        replies = [reply.result() for reply in asked]
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == [200, 200, 503]
    lost = next(reply for reply in replies if reply.status_code == 503)
    assert lost.json()["error"]["code"] == "unavailable"
    assert "may be sent again" in lost.json()["error"]["message"]
    assert lost.headers["retry-after"] == "1"
    agent.ready()
    assert agent.worker() != old
    assert agent.predict("tiny", [[1, 2, 3, 4]]).status_code == 200
    # A request that kills the worker by itself is answered, not tried again.
    deadly = agent.predict("suicidal", ["x"])
    assert (deadly.status_code, "SIGSEGV" in deadly.json()["error"]["message"]) == (503, True)
    agent.ready()
    assert "fleet_agent_worker_restarts_total 2.0" in agent.http.get("/metrics").text


@pytest.mark.slow
def test_a_model_whose_loading_kills_the_worker_fails_after_three_times(
    start_agent, tiny_model, written_model
):
    agent = start_agent(written_model("suicidal", SUICIDAL, options={"while_loading": True}), tiny_model())
    agent.until(lambda: agent.status()["state"] == "failed", "failed")
    assert "was killed by SIGKILL while loading it, 3 times" in agent.status()["error"]
    agent.until(lambda: agent.predict("tiny", [[1, 2, 3, 4]]).status_code == 200, "serving the other model")


@pytest.mark.slow
def test_nothing_is_left_when_the_front_is_killed(start_agent, tiny_model):
    agent = start_agent(tiny_model(delay_ms=4000)).ready()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: agent.predict("tiny", [[1, 2, 3, 4]]))
        agent.until(lambda: agent.status()["in_flight"] == 1, "running")
        agent.process.kill()
        agent.process.wait()
        assert isinstance(asked.exception(), httpx.TransportError)
    end = time.monotonic() + 3
    while agent.group() and time.monotonic() < end:
        time.sleep(0.02)
    assert agent.group() == []


def test_the_flags_start_it_without_a_file_and_admin_drain_stops_new_work():
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "fleet_agent",
        "--listen",
        "127.0.0.1:0",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    command += [
        "--model",
        "tiny=examples/tiny:model:Tiny",
        "--max-batch-size",
        "8",
        "--max-queue-delay-ms",
        "2.5",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().removeprefix("listening on ").strip()
        end = time.monotonic() + 60
        while httpx.get(url + "/readyz").status_code != 200 and time.monotonic() < end:
            time.sleep(0.05)
        reply = httpx.post(url + "/v1/models/tiny:predict", json={"instances": [[1, 2, 3, 4]]})
        status = httpx.get(url + "/status").json()
        drained = httpx.post(url + "/admin/drain").json()
        refused = httpx.post(url + "/v1/models/tiny:predict", json={"instances": [[1, 2, 3, 4]]})
        process.terminate()
        assert process.wait(10) == 0
    assert len(reply.json()["predictions"]) == 1
    assert status["models"][0]["max_batch_size"] == 8
    assert drained == {"state": "draining", "in_flight": 0, "queued": 0}
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
