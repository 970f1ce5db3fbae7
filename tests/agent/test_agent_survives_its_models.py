"""Batches that fail, hang, or are too large for memory; raw bodies and pipelines."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

# Doubles one number per instance. -1 fails, -2 hangs, -3 is a NaN; more than `holds` instances are out of memory.
# `runs` counts the batches, as the instance [-4.0] tells.
MOODY = """
import time
import torch

class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]

    def load(self, device, options):
        self.holds = int(options.get("holds", 1000))
        self.pause = float(options.get("pause_ms", 0)) / 1000
        self.runs = 0

    def forward(self, batch):
        self.runs += 1
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("simulated")
        if (batch == -2).any():
            time.sleep(3600)
        time.sleep(self.pause)
        if (batch == -1).any():
            raise RuntimeError("poisoned")
        out = torch.where(batch == -4, float(self.runs), batch * 2)
        return torch.where(batch == -3, float("nan"), out)
"""


WARM = """
    def warmup(self):
        return [[1.0]]
"""


@pytest.fixture(scope="module")
def agent(start_shared_agent, written_model):
    return start_shared_agent(
        written_model("moody", MOODY, max_batch_size=32, options={"pause_ms": 20}),
        written_model("quick", MOODY, max_batch_size=16),
        written_model("small", MOODY, max_batch_size=32, options={"holds": 5}),
        written_model("cramped", MOODY + WARM, max_batch_size=32, options={"holds": 5}),
        hang_timeout_s=2.0,
    ).ready()


def together(agent, model, numbers):
    """The replies to requests that wait behind one another, so that they share batches."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(lambda number: agent.predict(model, [[number]]), numbers))


def runs(agent, model):
    return int(agent.predict(model, [[-4.0]]).json()["predictions"][0][0])


def metric(agent, name):
    lines = agent.http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_poisoned_request_fails_alone_and_costs_few_runs(agent):
    before = runs(agent, "moody")
    replies = together(agent, "moody", [float(n) for n in range(31)] + [-1.0])
    assert [reply.status_code for reply in replies] == [200] * 31 + [500]
    assert [reply.json()["predictions"][0][0] for reply in replies[:31]] == [2.0 * n for n in range(31)]
    assert runs(agent, "moody") - before < 32


def test_a_nan_of_one_request_is_no_error_of_another(agent):
    replies = together(agent, "moody", [-3.0, *map(float, range(15))])
    assert [reply.status_code for reply in replies] == [500, *[200] * 15]


def test_a_warm_up_that_is_out_of_memory_learns_the_limit_and_the_model_is_loaded(agent):
    assert metric(agent, 'fleet_agent_batch_size_limit{model="cramped"') == 4
    before = runs(agent, "cramped")
    assert agent.predict("cramped", [[float(n)] for n in range(4)]).json()["predictions"] == [
        [0],
        [2],
        [4],
        [6],
    ]
    assert runs(agent, "cramped") - before == 2


def test_out_of_memory_is_survived_and_its_limit_learned(agent):
    numbers = [[float(n)] for n in range(32)]
    for _ in range(3):
        assert agent.predict("small", numbers).json()["predictions"] == [[2 * n] for (n,) in numbers]
    assert metric(agent, 'fleet_agent_batch_size_limit{model="small"') <= 5
    assert agent.status()["errors"] == 0 or agent.http.get("/readyz").status_code == 200


def test_bare_numbers_and_npy_files_are_answered_in_kind(agent):
    rows = np.arange(4, dtype=np.float32).reshape(4, 1)
    path = "/v1/models/moody:predict"
    bare = agent.http.post(path, content=rows.tobytes(), headers={"content-type": "application/octet-stream"})
    assert bare.headers["x-fleet-shape"] == "4,1"
    assert np.array_equal(np.frombuffer(bare.content, "<f4"), [0, 2, 4, 6])
    file = io.BytesIO()
    np.save(file, rows)
    npy = {"content-type": "application/x-npy"}
    answer = agent.http.post(path, content=file.getvalue(), headers=npy)
    assert np.array_equal(np.load(io.BytesIO(answer.content)), rows * 2)
    said = agent.http.post(path, content=file.getvalue(), headers={**npy, "accept": "application/json"})
    assert said.json() == {"predictions": [[0], [2], [4], [6]]}


@pytest.mark.parametrize(
    ("form", "body", "says"),
    [
        ("application/octet-stream", b"abc", "an instance is 4 bytes; the body has 3"),
        ("application/octet-stream", b"", "an instance is 4 bytes; the body has 0"),
        ("application/x-npy", b"abc", "no .npy file of numbers"),
        ("application/x-npy", None, "takes FP32, the array is FP64"),
    ],
)
def test_a_bad_raw_body_is_refused_by_name(agent, form, body, says):
    if body is None:
        file = io.BytesIO()
        np.save(file, np.zeros((2, 1)))
        body = file.getvalue()
    reply = agent.http.post("/v1/models/moody:predict", content=body, headers={"content-type": form})
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]


def raw_call(number, **headers):
    body = json.dumps({"instances": [[number]]}).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/models/moody:predict HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_pipeline_is_answered_in_order_by_whichever_way_each_call_takes(agent):
    host, port = agent.url.removeprefix("http://").split(":")
    calls = raw_call(1) + raw_call(2) + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + raw_call(3)
    calls += raw_call(4, connection="close")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        for at in range(0, len(calls), 37):  # in pieces that cut heads and bodies
            client.sendall(calls[at : at + 37])
            time.sleep(0.001)
        bodies = client.makefile("rb").read().split(b"\r\n\r\n")
    found = [part.split(b"HTTP/1.1")[0] for part in bodies[1:]]
    assert found == [
        b'{"predictions":[[2.0]]}',
        b'{"predictions":[[4.0]]}',
        b'{"status":"alive"}',
        b'{"predictions":[[6.0]]}',
        b'{"predictions":[[8.0]]}',
    ]


def test_two_lengths_of_a_body_are_refused(agent):
    host, port = agent.url.removeprefix("http://").split(":")
    smuggled = raw_call(1).replace(b"host: x\r\n", b"host: x\r\ntransfer-encoding: chunked\r\n")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(smuggled)
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_a_stopped_worker_is_replaced_and_its_requests_are_answered(agent):
    old = agent.worker()
    restarts = metric(agent, "fleet_agent_worker_restarts_total")
    os.kill(old, signal.SIGSTOP)
    started = time.monotonic()
    reply = agent.predict("moody", [[1.0]])
    assert (reply.status_code, "stopped" in reply.json()["error"]["message"]) == (503, True)
    assert time.monotonic() - started < 20
    agent.ready()
    assert agent.predict("moody", [[1.0]]).json() == {"predictions": [[2.0]]}
    assert metric(agent, "fleet_agent_worker_restarts_total") == restarts + 1


def test_a_forward_that_hangs_is_ended_and_what_waits_is_computed(agent):
    hangs = metric(agent, "fleet_agent_worker_hangs_total")
    with ThreadPoolExecutor(2) as pool:
        hung = pool.submit(agent.predict, "moody", [[-2.0]])
        agent.until(lambda: agent.status()["in_flight"] == 1, "running")
        waiting = pool.submit(agent.predict, "moody", [[3.0]])
        assert hung.result().status_code == 503
        assert hung.result().headers["retry-after"] == "1"
        assert "took longer than" in hung.result().json()["error"]["message"]
        assert waiting.result().json() == {"predictions": [[6.0]]}
    assert metric(agent, "fleet_agent_worker_hangs_total") == hangs + 1
