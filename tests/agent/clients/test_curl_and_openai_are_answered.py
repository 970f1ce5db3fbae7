"""curl with .npy files and bare numbers, and OpenAI's own Python client asking for embeddings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HALF = """
class Model:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 2]}]

    def load(self, device, options):
        pass

    def forward(self, batch):
        return batch.sum(dim=1) / 2
"""

# A text's vector: its length, and how often it has an "a".
LETTERS = """
import torch

class Model:
    embeddings = True

    def load(self, device, options):
        pass

    def preprocess(self, instances):
        return torch.tensor([[float(len(text)), float(text.count("a")), 0.5] for text in instances])

    def forward(self, batch):
        return batch

    def count_tokens(self, instances):
        return [len(text.split()) for text in instances]
"""

OPENAI = """
import base64
import struct
import sys
import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
assert [model.id for model in client.models.list()] == ["half", "letters"]
texts = ["banana", "b c", ""]
expected = [[6.0, 3.0, 0.5], [3.0, 0.0, 0.5], [0.0, 0.0, 0.5]]
for form in ("base64", "float", openai.NOT_GIVEN):
    answer = client.embeddings.create(model="letters", input=texts, encoding_format=form)
    vectors = [item.embedding for item in answer.data]
    if form == "base64":
        vectors = [list(struct.unpack("<3f", base64.b64decode(vector))) for vector in vectors]
    assert vectors == expected, answer
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.model) == (3, "letters"), answer
assert client.embeddings.create(model="letters", input="aa").data[0].embedding == [2.0, 2.0, 0.5]
for model, error in (("none", openai.NotFoundError), ("half", openai.BadRequestError)):
    try:
        client.embeddings.create(model=model, input="x")
    except error as said:
        assert model in str(said), said
    else:
        raise SystemExit(f"{model} was answered")
"""


@pytest.fixture(scope="module")
def agent(start_shared_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]) -> Any:
    return start_shared_agent(written_model("half", HALF), written_model("letters", LETTERS)).ready()


def curl(*words: str) -> bytes:
    argv = ["curl", "-sS", "--fail-with-body", *words]
    return subprocess.run(argv, capture_output=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("order", ["C", "F"])
def test_curl_sends_a_npy_file_and_gets_one(agent: Any, tmp_path: Path, order: Any) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    np.save(tmp_path / "in.npy", np.asarray(rows, order=order))
    url = f"{agent.url}/v1/models/half:predict"
    head = ["-H", "content-type: application/x-npy", "--data-binary", f"@{tmp_path}/in.npy"]
    curl(url, *head, "-o", str(tmp_path / "out.npy"))
    assert np.array_equal(np.load(tmp_path / "out.npy"), rows.sum(axis=1) / 2)


def test_curl_sends_bare_numbers_and_gets_them(agent: Any, tmp_path: Path) -> None:
    rows = np.arange(12, dtype="<f4").reshape(2, 3, 2)
    (tmp_path / "in").write_bytes(rows.tobytes())
    head = ["-H", "content-type: application/octet-stream", "--data-binary", f"@{tmp_path}/in"]
    said = curl(f"{agent.url}/v1/models/half:predict", *head)
    assert np.array_equal(np.frombuffer(said, "<f4").reshape(2, 2), rows.sum(axis=1) / 2)


def test_openais_client_gets_embeddings(agent: Any) -> None:
    argv = [sys.executable, "-c", OPENAI, agent.url]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr[-3000:]
