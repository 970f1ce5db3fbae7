"""One network in every format, served by a real agent: the answers are those of torch in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

ROWS = [[0.1, -0.2, 0.3, 0.4], [1.0, 2.0, -3.0, 0.5], [0.0, 0.0, 0.0, 0.0]]
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


@pytest.fixture(scope="module")
def agent(start_shared_agent: Callable[..., Any], files: Any) -> Any:
    st = {"format": "safetensors", "entrypoint": "model:Net", "weights": files.weights("net.safetensors")}
    ts = {"format": "torchscript", "weights": files.weights("net.ts")}
    export = {"format": "export", "weights": files.weights("net.pt2")}
    shaped = {**st, "inputs": INPUTS}
    wrapped = {"entrypoint": "model:Wrapped", "weights": files.weights("net.safetensors")}
    half = {"autocast": "bfloat16"}
    gpu = {"cuda_graphs": True, "pinned_memory": True}
    models = [
        files.model("class", **wrapped),
        files.model("safetensors", **st),
        files.model("safetensors-shaped", **shaped),
        files.model("torchscript", **ts),
        files.model("torchscript-shaped", **ts, inputs=INPUTS),
        files.model("export", **export),
        files.model("two", format="export", weights=files.weights("two.pt2")),
        files.model("class-autocast", **wrapped, compute=half),
        files.model("safetensors-dtype", **st, compute={"dtype": "bfloat16"}),
        files.model("class-dtype", **wrapped, compute={"dtype": "bfloat16", "channels_last": True}),
        files.model("export-autocast", **export, compute=half),
        files.model("torchscript-autocast", **ts, compute=half),
        files.model("for-a-gpu", **wrapped, compute=gpu),
    ]
    return start_shared_agent(*models).ready()


@pytest.mark.parametrize(
    "model", ["class", "safetensors", "torchscript", "torchscript-shaped", "export", "for-a-gpu"]
)
def test_the_answer_is_that_of_torch(agent: Any, files: Any, model: str) -> None:
    answer = agent.predict(model, ROWS)
    assert answer.status_code == 200, answer.text
    assert np.allclose(answer.json()["predictions"], files.expected(ROWS), atol=1e-6)
    alone = agent.predict(model, ROWS[:1]).json()["predictions"]
    assert np.allclose(alone, files.expected(ROWS[:1]), atol=1e-6)


@pytest.mark.parametrize(
    "model",
    ["class-autocast", "safetensors-dtype", "class-dtype", "export-autocast", "torchscript-autocast"],
)
def test_reduced_precision_computes_so_on_a_cpu_too(agent: Any, files: Any, model: str) -> None:
    rows, exact = agent.predict(model, ROWS).json()["predictions"], files.expected(ROWS)
    assert np.allclose(rows, exact, atol=2e-2)
    assert not np.allclose(rows, exact, atol=1e-6), "computed in float32"


def test_an_exported_program_says_its_inputs(agent: Any) -> None:
    said = agent.http.get("/v2/models/export").json()["inputs"]
    assert said == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    said = agent.http.get("/v2/models/two").json()["inputs"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in said] == [
        ("a", "FP32", [-1, 4]),
        ("b", "INT64", [-1, 4]),
    ]


def test_several_inputs_and_outputs_by_name(agent: Any) -> None:
    a, b = np.ones((2, 4), dtype=np.float32), np.full((2, 4), 2, dtype=np.int64)
    client = InferenceServerClient(agent.url.removeprefix("http://"))
    inputs = [InferInput("a", [2, 4], "FP32"), InferInput("b", [2, 4], "INT64")]
    inputs[0].set_data_from_numpy(a)
    inputs[1].set_data_from_numpy(b)
    result = client.infer("two", inputs)
    client.close()
    assert np.array_equal(result.as_numpy("output0"), a + b)
    assert np.array_equal(result.as_numpy("output1"), a.sum(axis=1))
    answer = agent.predict("two", [{"a": [1, 1, 1, 1], "b": [2, 2, 2, 2]}])
    assert answer.json()["predictions"] == [{"output0": [3, 3, 3, 3], "output1": 4}]


@pytest.mark.parametrize(
    ("model", "row"), [("export", [1, 2]), ("torchscript-shaped", [1, 2]), ("safetensors-shaped", [1, 2])]
)
def test_a_wrong_shape_is_the_clients_fault(agent: Any, model: str, row: list[float]) -> None:
    answer = agent.predict(model, [row])
    assert answer.status_code == 400
    assert "expected shape [4], got [2]" in answer.text


def test_a_missing_input_is_the_clients_fault(agent: Any) -> None:
    answer = agent.predict("two", [{"a": [1, 1, 1, 1], "c": [2, 2, 2, 2]}])
    assert answer.status_code == 400
    assert "the program takes the inputs a, b" in answer.text


def test_what_only_a_gpu_has_is_said_in_the_log(agent: Any) -> None:
    assert "model for-a-gpu: compute.cuda_graphs does nothing on cpu" in agent.log()
    assert "model for-a-gpu: compute.pinned_memory does nothing on cpu" in agent.log()
