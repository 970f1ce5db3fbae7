"""tritonclient[http] with binary tensors and with JSON: every datatype that it has comes back as it went."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

# Gives back what it gets.
ECHO = """
class Model:
    inputs = [{"name": n, "datatype": n, "shape": [-1, 2]} for n in TYPES]
    outputs = inputs

    def load(self, device, options):
        pass

    def forward(self, batch):
        return batch
"""

# The same where there is text among it, which a model gets instance by instance.
ECHO_TEXT = """
import numpy as np

class Model:
    inputs = [{"name": n, "datatype": n, "shape": [-1, 2]} for n in TYPES]
    outputs = inputs

    def load(self, device, options):
        pass

    def preprocess(self, instances):
        if TYPES == ["BYTES"]:
            return {"BYTES": np.stack(instances)}
        return {name: np.stack([instance[name] for instance in instances]) for name in TYPES}

    def forward(self, batch):
        return batch
"""

# In a process of its own: its imports patch and warn.
CLIENT = """
import json
import sys
import warnings

import ml_dtypes
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import triton_to_np_dtype

TYPES = json.loads(sys.argv[2])

def values(name, pick):
    if name == "BOOL":
        return np.array([[True, False], [False, False], [True, True]])
    if name == "BYTES":
        rows = [[b"a\\x00b", b""], ["\\u00e4 \\U0001f40b".encode(), b"\\xff\\xfe"], [b"x" * 5000, b" "]]
        return np.array(rows, dtype=object)
    if name == "BF16":
        return pick.normal(size=(3, 2)).astype(ml_dtypes.bfloat16)
    dtype = np.dtype(triton_to_np_dtype(name))
    if dtype.kind == "f":
        return np.array([[np.finfo(dtype).max, np.finfo(dtype).min], [0.1, -0.0], [np.finfo(dtype).tiny, 3]], dtype)
    return np.array([[np.iinfo(dtype).max, np.iinfo(dtype).min], [0, 1], [7, 100]], dtype)

client = triton.InferenceServerClient(sys.argv[1].removeprefix("http://"))
pick = np.random.default_rng(1)
ways = 0
for model, names in TYPES.items():
    sent = {name: values(name, pick) for name in names}
    for binary_in, binary_out in [(True, True), (True, False), (False, True), (False, False)]:
        if not (binary_in and binary_out):
            # JSON has no BF16 in this client, no bytes that are no text, and no whole number over 2**53 for sure
            sent = {name: array for name, array in sent.items() if name != "BF16"}
            if "BYTES" in sent:
                sent["BYTES"] = np.array([[b"a", b""], ["\\u00e4".encode(), b"c"], [b"d", b" "]], dtype=object)
        if set(sent) != set(names):
            continue
        inputs, outputs = [], []
        for name, array in sent.items():
            tensor = triton.InferInput(name, list(array.shape), name)
            tensor.set_data_from_numpy(array, binary_data=binary_in)
            inputs.append(tensor)
            outputs.append(triton.InferRequestedOutput(name, binary_data=binary_out))
        try:
            result = client.infer(model, inputs, outputs=outputs)
        except triton.InferenceServerException as error:
            raise SystemExit(f"{model}, {binary_in=}, {binary_out=}: {error.status()} {error.message()}") from None
        for name, array in sent.items():
            got = result.as_numpy(name)
            if name == "BYTES":
                got = np.array([[v.encode() if isinstance(v, str) else v for v in row] for row in got], dtype=object)
            same = got.shape == array.shape and (got == array).all()
            assert same, (model, name, binary_in, binary_out, array, got)
            assert name == "BYTES" or got.dtype == array.dtype, (name, got.dtype)
            ways += 1
print(ways)
"""

NUMBERS = ["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
TYPES = {
    "numbers": NUMBERS,
    "unsigned": ["UINT16", "UINT32", "UINT64"],
    "bytes": ["BYTES"],
    "bf16": ["BF16"],
    "all": [*NUMBERS, "UINT16", "UINT32", "UINT64", "BYTES"],
}


@pytest.fixture(scope="module")
def agent(start_shared_agent: Callable[..., Any], written_model: Callable[..., dict[str, Any]]) -> Any:
    models = []
    for name, types in TYPES.items():
        source = (ECHO_TEXT if "BYTES" in types else ECHO).replace("TYPES", repr(types))
        models.append(written_model(name, source))
    return start_shared_agent(*models).ready()


def test_every_datatype_comes_back_as_it_went(agent: Any) -> None:
    argv = [sys.executable, "-c", CLIENT, agent.url, json.dumps(TYPES)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert int(ran.stdout) == 4 * (9 + 3 + 1 + 13) + 1, ran.stdout
