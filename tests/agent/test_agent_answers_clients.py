"""A running agent over HTTP: V1, V2, stock clients, listings, and one shape for every refusal."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

WEIRD = """
import torch

class Model:
    inputs = [
        {"name": "a", "datatype": "FP64", "shape": [-1, 2]},
        {"name": "b", "datatype": "INT64", "shape": [-1]},
    ]

    def load(self, device, options):
        pass

    def forward(self, batch):
        return {"sum": batch["a"].sum(dim=1), "b": batch["b"], "even": batch["b"] % 2 == 0}
"""

TEXT = """
class Model:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    outputs = [{"name": "upper", "datatype": "BYTES", "shape": [-1]}]

    def load(self, device, options):
        pass

    def preprocess(self, instances):
        return [text.upper() for text in instances]

    def forward(self, batch):
        return batch
"""

# Stock client, in a process of its own: its imports patch and warn.
TRITON = """
import sys
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1].removeprefix("http://"))
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("tiny") and client.is_model_ready("tiny", "1")
assert client.get_model_metadata("tiny")["inputs"][0]["shape"] == [-1, 4]
rows = np.arange(12, dtype=np.float32).reshape(3, 4)
answers = []
for binary_in in (False, True):
    for outputs in (None, False, True):
        tensor = triton.InferInput("INPUT", [3, 4], "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary_in)
        wanted = None if outputs is None else [triton.InferRequestedOutput("OUTPUT", binary_data=outputs)]
        result = client.infer("tiny", [tensor], outputs=wanted, request_id="r7")
        assert result.get_response()["id"] == "r7"
        answers.append(result.as_numpy("OUTPUT"))
assert all(np.allclose(answer, answers[0], atol=1e-5) for answer in answers)
words = np.array([b"one", "zwei \\u00e4".encode()], dtype=object)
for binary_in in (False, True):
    tensor = triton.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(words, binary_data=binary_in)
    out = client.infer("text", [tensor]).as_numpy("upper")
    assert [word.decode() for word in out] == ["ONE", "ZWEI \\u00c4"], out
try:
    client.infer("nothing", [tensor])
    raise SystemExit("an unknown model was answered")
except triton.InferenceServerException as error:
    assert error.status() == "404", error
print(answers[0].tolist())
"""


@pytest.fixture(scope="module")
def agent(start_shared_agent, tiny_model, written_model):
    models = [tiny_model(), written_model("weird", WEIRD), written_model("text", TEXT)]
    return start_shared_agent(*models, host="host-1", fleet="f", action_id="a1", release="r1").ready()


def tensor(name="INPUT", datatype="FP32", shape=(1, 4), data=(1, 2, 3, 4), **more):
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": list(data), **more}


def infer(agent, model, *inputs, **request):
    return agent.http.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **request})


def test_predict_answers_each_instance_in_order(agent):
    instances = [[float(i), 1, 2, 3] for i in range(100)]
    reply = agent.predict("tiny", instances)
    assert reply.status_code == 200
    assert reply.headers["x-fleet-model-version"] == "1"
    alone = [agent.predict("tiny", [instance]).json()["predictions"][0] for instance in instances[:3]]
    assert np.allclose(reply.json()["predictions"][:3], alone, atol=1e-5)
    assert len(reply.json()["predictions"]) == 100


def test_the_request_id_is_echoed_or_made(agent):
    assert agent.predict("tiny", [[1, 2, 3, 4]], x_request_id="abc-1").headers["x-request-id"] == "abc-1"
    made = {
        agent.http.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        for bad in ("", "a b")
    }
    assert len(made) == 2
    assert "a b" not in made


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", '{"instances": [...]}'),
        (b'{"instances": 3}', '{"instances": [...]}'),
        (b'{"instances": []}', "empty"),
        (b'{"instances": [[1, 2, 3, NaN]]}', "not valid JSON"),
        (b'{"instances": [[1, 2, 3, 1e999]]}', "not valid JSON"),
        (b'{"instances": [[1, 2, 3, 1e99]]}', "instance 0: a number is too large"),
        (b'{"instances": [[1, 2, 3, 4], [1, 2, 3]]}', "instance 1: expected shape [4], got [3]"),
        (b'{"instances": [[1, 2, 3, 4], [1, 2, 3, "x"]]}', "instance 1: expected numbers"),
        (b'{"instances": [[1, 2, 3, 4], null]}', "instance 1: expected"),
        (b'{"instances": [' + b"[" * 60 + b"1" + b"]" * 60 + b"]}", "instance 0: expected"),
        (b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_a_bad_predict_body_is_refused_by_name(agent, body, says):
    reply = agent.http.post("/v1/models/tiny:predict", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "bad_request"
    assert says in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (tensor(name="X"), "there is no input 'X'; the model takes INPUT"),
        (tensor(datatype="INT32"), "is FP32, not INT32"),
        (tensor(shape=(1, 5)), "has the shape [-1, 4]"),
        (tensor(shape=(2, 4)), "wants 8 elements, data has 4"),
        (tensor(shape=(0, 4), data=()), "batch size"),
        (tensor(shape=("1", 4)), "whole numbers"),
        (tensor(data=(1, 2, 3, "x")), "but data has text"),
        (tensor(data=(True, False, True, True)), "but data has booleans"),
        (tensor(data=(1, 2, [3], 4)), "ragged"),
        (tensor(parameters={"sequence_id": 3}), "sequence_id"),
        ({"name": "INPUT"}, "no datatype"),
        (3, "each input is an object"),
    ],
)
def test_a_bad_tensor_is_refused_by_name(agent, bad, says):
    reply = infer(agent, "tiny", bad)
    assert reply.status_code == 400, reply.text
    assert says in reply.json()["error"]["message"]


def test_infer_takes_several_inputs_and_gives_several_outputs(agent):
    inputs = [tensor("a", "FP64", (2, 2), (1, 2, 3, 4)), tensor("b", "INT64", (2,), (7, 8))]
    reply = infer(agent, "weird", *inputs, id="x").json()
    assert reply["id"] == "x"
    assert {o["name"]: (o["datatype"], o["shape"], o["data"]) for o in reply["outputs"]} == {
        "sum": ("FP64", [2], [3.0, 7.0]),
        "b": ("INT64", [2], [7, 8]),
        "even": ("BOOL", [2], [False, True]),
    }
    chosen = infer(agent, "weird", *inputs, outputs=[{"name": "b"}]).json()
    assert [output["name"] for output in chosen["outputs"]] == ["b"]
    missing = infer(agent, "weird", inputs[0])
    assert "input 'b' is missing" in missing.json()["error"]["message"]
    unknown = infer(agent, "weird", *inputs, outputs=[{"name": "c"}])
    assert "there is no output 'c'" in unknown.json()["error"]["message"]


def test_predict_takes_named_inputs_as_objects(agent):
    reply = agent.predict("weird", [{"a": [1, 2], "b": 3}, {"a": [3, 4], "b": 4}])
    assert reply.json() == {
        "predictions": [{"sum": 3.0, "b": 3, "even": False}, {"sum": 7.0, "b": 4, "even": True}]
    }
    bad = agent.predict("weird", [{"a": [1, 2], "b": 3}, {"a": [3, 4]}])
    assert "instance 1: expected an object with the keys a, b" in bad.json()["error"]["message"]


def test_the_stock_triton_client_infers_json_and_binary(agent):
    ran = subprocess.run(
        [sys.executable, "-c", TRITON, agent.url], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    ours = agent.predict("tiny", [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]).json()["predictions"]
    assert np.allclose(json.loads(ran.stdout), ours, atol=1e-5)


def test_listings_name_the_models(agent):
    listed = agent.http.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == listed["models"] == ["tiny", "weird", "text"]
    assert agent.http.get("/v1/models/tiny").json()["ready"] is True
    assert "binary_tensor_data" in agent.http.get("/v2").json()["extensions"]
    metadata = agent.http.get("/v2/models/tiny/versions/1").json()
    assert metadata["outputs"] == [{"name": "OUTPUT", "datatype": "FP32", "shape": [-1, 3]}]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("DELETE", "/status", 405, "method_not_allowed"),
        ("GET", "/v1/models/tiny:predict", 404, "not_found"),
        ("POST", "/v1/models/none:predict", 404, "not_found"),
        ("POST", "/v1/models/tiny/versions/2:predict", 404, "not_found"),
        ("GET", "/v2/models/none/ready", 404, "not_found"),
        ("GET", "/v2/models/tiny/versions/2", 404, "not_found"),
        ("POST", "/admin/models", 400, "bad_request"),
        ("POST", "/v1/chat/completions", 400, "bad_request"),
    ],
)
def test_every_refusal_has_the_one_shape(agent, method, path, status, code):
    reply = agent.http.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == {"code", "message", "retry_after_s"}
    assert reply.json()["error"]["code"] == code
    assert reply.headers["x-request-id"]


def test_a_body_over_the_limit_is_refused_unread(agent):
    host, port = agent.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(
            b"POST /v1/models/tiny:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 68157440\r\n\r\n"
        )
        reply = client.makefile("rb").read()  # to the end: it closes the connection
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in reply


def test_a_compressed_body_is_refused(agent):
    reply = agent.http.post("/v1/models/tiny:predict", headers={"content-encoding": "gzip"}, content=b"x")
    assert "Content-Encoding" in reply.json()["error"]["message"]


def test_status_and_metrics_count_what_happened(agent):
    before = agent.status()
    agent.predict("tiny", [[1, 2, 3, 4]])
    agent.predict("tiny", [[1, 2, 3]])
    after = agent.status()
    assert after["schema"] == "fleetctl/agent-status/v1"
    assert (after["host"], after["fleet"], after["action_id"], after["release"]) == (
        "host-1",
        "f",
        "a1",
        "r1",
    )
    assert (after["state"], after["error"], after["device"]) == ("ready", None, "cpu")
    assert after["completed"] - before["completed"] == 1
    assert after["errors"] == before["errors"]
    assert after["latency"]["count"] - before["latency"]["count"] == 1
    assert before["busy_s"] < after["busy_s"] < after["at"] - after["started_at"]
    assert after["device_memory"] == {"used_bytes": None, "total_bytes": None}
    lines = agent.http.get("/metrics").text.splitlines()
    counted = [
        line for line in lines if line.startswith("fleet_agent_requests_total") and "completed" in line
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == after["completed"]
    assert "fleet_agent_ready 1.0" in lines
    assert not any(line.startswith("fleet_agent_device_memory_bytes{") for line in lines)


def test_the_log_is_one_json_object_a_line_with_the_host(agent):
    lines = [json.loads(line) for line in agent.log().splitlines()]
    assert {line["host"] for line in lines} == {"host-1"}
    assert any("model tiny is loaded" in line["message"] for line in lines)
    assert not any(line["level"] == "error" for line in lines)


def test_the_openapi_document_names_every_address(agent):
    paths = agent.http.get("/openapi.json").json()["paths"]
    assert {"/v1/models/{name}:predict", "/v2/models/{name}/infer", "/v1/embeddings", "/readyz"} <= set(paths)
