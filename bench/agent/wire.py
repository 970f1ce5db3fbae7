"""What each subject is sent and what it answers: one request with 256 numbers, and the 10 numbers of the reply.

Forms: `json` as each subject's documents show it; `binary`: fleetctl's V2 with binary tensors, Mosec's raw bytes;
`raw`: fleetctl's body of bare float32, Mosec's the same; `orjson`: JSON, with Mosec's decoding done by orjson.
"""

from __future__ import annotations

import array
import json
import random
from typing import Any

from bench.agent.shape import SIZE


def values(seed: int) -> list[float]:
    numbers = random.Random(seed)
    return [round(numbers.uniform(-1, 1), 6) for _ in range(SIZE)]


def request(subject: str, model: str, form: str, numbers: list[float]) -> bytes:
    more = ""
    kind = "application/json"
    raw = array.array("f", numbers).tobytes()
    if form == "raw" or (subject, form) == ("mosec", "binary"):
        body, kind = raw, "application/octet-stream"
    elif form == "binary":
        parameters = {"binary_data_size": len(raw)}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, SIZE], "parameters": parameters}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        body, more = head + raw, f"inference-header-content-length: {len(head)}\r\n"
    else:
        body = json.dumps(_json(subject, numbers)).encode()
    path = _path(subject, model, form)
    fixed = f"host: bench\r\ncontent-type: {kind}\r\n{more}content-length: {len(body)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{fixed}".encode() + body


def answer(subject: str, form: str, body: bytes) -> list[float]:
    """The numbers in a reply. Raises ValueError, KeyError or IndexError for anything else."""
    if form in ("raw", "binary"):
        # V2 with binary data: the tensor is the last 40 bytes, after the JSON head.
        return list(array.array("f", body[-40:]))
    said: Any = json.loads(body)
    if isinstance(said, dict):
        said = said["predictions"]
    return [float(number) for number in (said[0] if isinstance(said[0], list) else said)]


def _path(subject: str, model: str, form: str) -> str:
    if subject == "mosec":
        return f"/{model}/{'raw' if form == 'binary' else form}"
    if form == "binary":
        return f"/v2/models/{model}/infer"
    if subject in ("fleetctl", "fastapi-unbatched"):
        return f"/v1/models/{model}:predict"
    return {"litserve": "/predict", "bentoml": "/predict", "ray-serve": "/"}[subject]


def _json(subject: str, numbers: list[float]) -> Any:
    if subject in ("fleetctl", "fastapi-unbatched"):
        return {"instances": [numbers]}
    if subject == "bentoml":
        return {"instances": [numbers]}
    return numbers if subject == "mosec" else {"instance": numbers}
