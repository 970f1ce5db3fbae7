"""Deadlines, clients that leave, models that misbehave, overload, tokens, memory: what the agent promises."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

# Writes down every instance that it computes; an instance that is a number sleeps that many milliseconds first.
RECORDING = """
import time

class Model:
    def load(self, device, options):
        self.file = open(options["file"], "a", buffering=1)

    def preprocess(self, instances):
        return instances

    def forward(self, batch):
        self.file.write("".join(f"{instance}\\n" for instance in batch))
        time.sleep(sum(value for value in batch if isinstance(value, int)) / 1000)
        return batch
"""

MISBEHAVING = """
class Model:
    def load(self, device, options):
        pass

    def preprocess(self, instances):
        for instance in instances:
            if instance == "unreadable":
                raise ValueError("this is no picture")
        return instances

    def forward(self, batch):
        if "poison" in batch:
            raise RuntimeError("boom")
        if "nan" in batch:
            return [float("nan") for _ in batch]
        if "object" in batch:
            return [self for _ in batch]
        return batch[:-1] if "short" in batch else batch
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return tmp_path_factory.mktemp("record") / "computed"


@pytest.fixture(scope="module")
def agent(start_shared_agent, written_model, record):
    limits = {"max_batch_size": 1, "max_queue_size": 8, "device_memory_bytes": 1 << 30}
    recording = written_model("recording", RECORDING, options={"file": str(record)}, **limits)
    bad = written_model("bad", MISBEHAVING, device_memory_bytes=2 << 30)
    return start_shared_agent(recording, bad, device_memory_total_bytes=8 << 30).ready()


def queued(agent, count):
    agent.until(lambda: agent.status()["models"][0]["queued"] == count, f"{count} queued")


def running(agent):
    agent.until(lambda: agent.status()["models"][0]["in_flight"] == 1, "running")


def settled(agent):
    agent.until(lambda: agent.status()["in_flight"] == agent.status()["queued"] == 0, "settled")


def test_expired_work_is_refused_in_time_and_never_computed(agent, record):
    with ThreadPoolExecutor() as pool:
        first = pool.submit(agent.predict, "recording", [1500])
        running(agent)
        late = agent.predict("recording", ["late"], x_request_timeout_ms="50")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert late.elapsed.total_seconds() < 1.2
        assert first.result().json() == {"predictions": [1500]}
    assert agent.predict("recording", ["in time"], x_request_timeout_ms="5000").status_code == 200
    assert "late" not in record.read_text().splitlines()


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "1e12"])
def test_a_timeout_that_is_none_is_refused(agent, value):
    reply = agent.predict("recording", ["x"], x_request_timeout_ms=value)
    assert reply.status_code == 400
    assert "x-request-timeout-ms" in reply.json()["error"]["message"]


def test_what_a_client_that_left_had_asked_is_not_computed(agent, record):
    host, port = agent.url.removeprefix("http://").split(":")
    body = json.dumps({"instances": ["abandoned"]}).encode()
    request = b"POST /v1/models/recording:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    with ThreadPoolExecutor() as pool:
        first = pool.submit(agent.predict, "recording", [1500])
        running(agent)
        clients = [socket.create_connection((host, int(port))) for _ in range(5)]
        for client in clients:
            client.sendall(request)
        queued(agent, 5)
        for client in clients:
            client.close()
        queued(agent, 0)
        assert first.result().status_code == 200
    settled(agent)
    assert "abandoned" not in record.read_text().splitlines()
    assert 'outcome="abandoned",version="1"} 5.0' in agent.http.get("/metrics").text


def test_a_full_queue_refuses_with_the_time_to_wait(agent):
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(agent.predict, "recording", [1500])
        running(agent)
        waiting = [pool.submit(agent.predict, "recording", ["w"]) for _ in range(8)]
        queued(agent, 8)
        refused = agent.predict("recording", ["too many"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert {reply.result().status_code for reply in [first, *waiting]} == {200}


@pytest.mark.parametrize(
    ("instances", "status", "says"),
    [
        (["a", "unreadable"], 400, "instance 1: this is no picture"),
        (["poison"], 500, "model bad raised RuntimeError: boom"),
        (["short", "a", "b"], 500, "model bad returned 2 outputs for 3 instances"),
        (["nan"], 500, "NaN"),
        (["object"], 500, "output 0 holds a Model"),
    ],
)
def test_a_misbehaving_model_is_named_with_what_it_did(agent, instances, status, says):
    reply = agent.predict("bad", instances)
    assert reply.status_code == status
    assert says in reply.json()["error"]["message"]


def test_a_bad_request_takes_no_neighbour_with_it(agent):
    """All wait behind a slow request of the other model, so that they share a batch."""
    with ThreadPoolExecutor(20) as pool:
        slow = pool.submit(agent.predict, "recording", [1200])
        running(agent)
        asked = ["poison", "unreadable", *(f"good {i}" for i in range(14))]
        replies = [pool.submit(agent.predict, "bad", [text]) for text in asked]
        statuses = [reply.result().status_code for reply in replies]
        assert statuses == [500, 400, *[200] * 14]
        assert [r.result().json()["predictions"] for r in replies[2:]] == [[text] for text in asked[2:]]
        slow.result()


def test_answers_are_never_mixed_up_under_concurrency(agent):
    def ask(number):
        texts = [f"{number}-{i}" for i in range(1 + number % 70)]
        reply = agent.predict("bad", texts + (["poison"] if number % 17 == 0 else []))
        return reply.status_code == (500 if number % 17 == 0 else 200) and (
            number % 17 == 0 or reply.json()["predictions"] == texts
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(300)))


def test_a_token_is_wanted_on_all_but_the_probes(start_agent, tiny_model, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    agent = start_agent(tiny_model(), token_file=str(token)).ready()
    assert agent.predict("tiny", [[1, 2, 3, 4]]).status_code == 200
    for given in (None, "Bearer wrong", "s3cret", "Bearer s3cret2"):
        headers = {} if given is None else {"authorization": given}
        for path in ("/status", "/metrics", "/v1/models", "/v2/health/ready", "/openapi.json", "/nothing"):
            reply = httpx.get(agent.url + path, headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "unauthorized")
        assert httpx.get(agent.url + "/healthz", headers=headers).status_code == 200
        assert httpx.get(agent.url + "/readyz", headers=headers).status_code == 200
    assert "s3cret" not in agent.log()


def test_on_cpu_memory_is_the_configured_bound_and_what_models_declare(agent):
    status = agent.status()
    assert status["device_memory"] == {"used_bytes": 3 << 30, "total_bytes": 8 << 30}
    assert [model["device_memory_bytes"] for model in status["models"]] == [1 << 30, 2 << 30]
    assert 'fleet_agent_device_memory_bytes{kind="total"} 8.589934592e+09' in agent.http.get("/metrics").text


def test_several_devices_share_one_queue(start_agent, tiny_model):
    agent = start_agent(tiny_model(delay_ms=1000), device="cpu,cpu").ready()
    assert len(agent.group()) == 3
    barrier = threading.Barrier(2)

    def ask(_):
        barrier.wait()
        return agent.predict("tiny", [[1, 2, 3, 4]] * 32).elapsed.total_seconds()

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(ask, range(2))) < 1.8


LOADS = {
    "there is no folder": ({"path": "/nowhere"}, None),
    "has no module 'other'; it has model": ({"entrypoint": "other:Model"}, "class Model: pass"),
    "has no 'Modell'; its classes: Model": ({"entrypoint": "model:Modell"}, "class Model: pass"),
    "is not of the form": ({"entrypoint": "model"}, "class Model: pass"),
    "has no method load and no forward": ({}, "class Model: pass"),
    "importing 'model' failed: ModuleNotFoundError: No module named 'nonesuch' (model.py:2)": (
        {},
        "\nimport nonesuch",
    ),
    "load() failed: FileNotFoundError": (
        {},
        "class Model:\n    def load(self, d, o): open('/nowhere')\n    def forward(self, b): pass",
    ),
    "inputs[0].datatype is one of": (
        {},
        "class Model:\n    inputs = [{'name': 'x', 'datatype': 'FLOAT', 'shape': [-1]}]\n"
        "    def load(self, d, o): pass\n    def forward(self, b): pass",
    ),
    "warm-up failed: model m6 returned 1 outputs for 2 instances": (
        {"max_batch_size": 2},
        "class Model:\n    def load(self, d, o): pass\n    def forward(self, b): return b[:1]\n"
        "    def warmup(self): return [[1.0]]",
    ),
}


def test_a_model_that_does_not_load_says_why_and_the_others_serve(start_agent, tiny_model, written_model):
    failing = []
    for index, (settings, source) in enumerate(LOADS.values()):
        failing.append({**written_model(f"m{index}", source or ""), **settings})
    failing[-1]["name"] = "m6"
    failing[6]["name"] = "m8"
    agent = start_agent(*failing, tiny_model())
    agent.until(lambda: agent.status()["models"][-1]["ready"], "ready")
    status = agent.status()
    assert status["state"] == "failed"
    for says, model in zip(LOADS, status["models"], strict=False):
        assert says in model["error"]
    ready = agent.http.get("/readyz")
    assert ready.status_code == 503
    assert "there is no folder /nowhere" in ready.json()["error"]["message"]
    assert agent.predict("tiny", [[1, 2, 3, 4]]).status_code == 200
    assert agent.predict("m1", [1]).status_code == 503


def test_two_models_may_have_files_of_the_same_names(start_agent, written_model):
    source = (
        "from . import layers as mine\nimport layers\n"
        "class Model:\n    def load(self, d, o): pass\n    def preprocess(self, i): return i\n"
        "    def forward(self, b):\n        from .layers import NAME\n"
        "        return [f'{layers.NAME} {mine.NAME} {NAME}' for _ in b]"
    )
    models = [written_model(name, source) for name in ("one", "two")]
    for model in models:
        (Path(model["path"]) / "layers.py").write_text(f"NAME = {model['name']!r}")
    agent = start_agent(*models).ready()
    for name in ("one", "two"):
        assert agent.predict(name, [0]).json() == {"predictions": [f"{name} {name} {name}"]}


def test_an_unknown_device_is_said(start_agent, tiny_model):
    agent = start_agent(tiny_model(), device="cuda:7")
    agent.until(lambda: agent.status()["state"] == "failed", "failed")
    assert "cuda:7" in agent.http.get("/readyz").json()["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "127.0.0.1:0"], "give --config FILE"),
        (["--listen", "127.0.0.1", "--model", "a=b:c:D"], "is not HOST:PORT"),
        (["--listen", "0.0.0.0:0", "--model", "a=b:c:D"], "can be reached from outside; give a token file"),
        (["--listen", "127.0.0.1:0", "--model", "a"], "expected NAME=DIR:module:Class"),
        (["--listen", "127.0.0.1:0", "--model", "a=b:c:D", "--model", "a=b:c:D"], "configured twice"),
        (["--listen", "127.0.0.1:0", "--model", "a=b:c:D", "--max-batch-size", "0"], "max_batch_size"),
        (["--listen", "127.0.0.1:0", "--model", "a=b:c:D", "--token-file", "/nowhere"], "can't be read"),
        (["--config", "/nowhere"], "can't be read"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_2(arguments, says):
    ran = subprocess.run(
        [sys.executable, "-m", "fleet_agent", *arguments], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 2
    assert says in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout == ""


def test_a_bad_configuration_file_names_the_field(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"listen": "127.0.0.1:0", "models": [{"name": "a", "path": ".", "entrypont": "x:Y"}]}')
    command = [sys.executable, "-m", "fleet_agent", "--config", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "models.0.entrypont" in ran.stderr
