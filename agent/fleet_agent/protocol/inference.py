"""The calls that go to a model: KServe V1 predict, Open Inference Protocol (V2) infer, OpenAI embeddings.

Each is read into an `Asked`, what to compute and how to say the answer, which does no waiting; who waits, and how, is
the business of server.py and hot.py.

Sources: KServe "V1 protocol"; KServe "Open Inference Protocol" with Triton's binary tensor data extension; OpenAI
"Create embeddings"; numpy's format of .npy files.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fleet_agent.engine.engine import Engine
from fleet_agent.http.call import Headers, Reply, parse_json
from fleet_agent.protocol import raw, tensorcall
from fleet_agent.protocol.asked import Asked, dumps
from fleet_agent.served.answer import Answer
from fleet_agent.served.served import ServedModel
from fleet_agent.served.traits import Traits
from fleet_agent.values.payload import Rows
from fleet_agent.values.tensors import Array
from fleet_agent.values.vectors import VectorReader
from fleet_wire.refusal import Refusal

# From the body to what it asks for; raises Refusal. And who reads the bodies behind such headers.
Reader = Callable[[bytes], Asked]
Work = Callable[[Headers], Reader]


class Inference:
    """Understands calls, in three steps, so that the first two are taken once for many calls: by the path, by the
    headers, by the body. The last one finds the model, and raises Refusal."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._vectors = VectorReader()

    def route(self, path: str) -> Work | None:
        """None: no call to a model of our own has that path; with outside engines about, the body may decide."""
        if self._engine.outside and (path == "/v1/embeddings" or self._engine.outside.named(path)):
            return None
        if path.startswith("/v1/models/") and path.endswith(":predict"):
            return partial(self.predict, *versioned(path[len("/v1/models/") : -len(":predict")]))
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            return partial(self.infer, *versioned(path[len("/v2/models/") : -len("/infer")]))
        if path == "/v1/embeddings":
            return self.embed
        return None

    def predict(self, name: str, version: str | None, headers: Headers) -> Reader:
        """V1: {"instances": [...]} -> {"predictions": [...]}; raw numbers or an .npy file by Content-Type."""
        form = raw.form_of(headers)
        if form is None:
            return partial(self._instances, name, version)
        return partial(self._numbers, name, version, form, raw.answer_form(headers, form))

    def infer(self, name: str, version: str | None, headers: Headers) -> Reader:
        """V2: tensors as JSON or as binary data, in and out."""
        length = headers.get(tensorcall.HEADER_LENGTH)
        return lambda body: tensorcall.read(self._served(name, version), length, body)

    def embed(self, headers: Headers) -> Reader:
        """OpenAI embeddings: {"input": text or texts, "model", "encoding_format"} -> one vector per text."""
        return partial(self._texts, headers)

    def _numbers(
        self, name: str, version: str | None, form: str, answers_in: str | None, body: bytes
    ) -> Asked:
        served = self._served(name, version)
        array = raw.read(form, body, served.config.name, _traits(served))
        if answers_in is None:
            return Asked(served, array, partial(_predictions, served))
        return Asked(served, array, partial(_raw_reply, served, answers_in))

    def _instances(self, name: str, version: str | None, body: bytes) -> Asked:
        served = self._served(name, version)
        vector = _traits(served).vector
        if vector is not None:
            rows = self._vectors.rows(body, vector[1])
            if rows is not None:
                return Asked(served, {vector[0]: rows}, partial(_predictions, served))
        request = parse_json(body)
        instances = request.get("instances") if isinstance(request, dict) else None
        if not isinstance(instances, list):
            raise Refusal("bad_request", 'the body is {"instances": [...]}, one value per instance')
        if not instances:
            raise Refusal("bad_request", "instances is empty: there is nothing to predict")
        return Asked(served, _stacked(served.traits, instances) or instances, partial(_predictions, served))

    def _texts(self, headers: Headers, body: bytes) -> Asked:
        request = parse_json(body)
        if not isinstance(request, dict):
            raise Refusal("bad_request", 'the body is {"model": ..., "input": text or list of texts}')
        served = self._embedder(headers, request.get("model"))
        texts = request.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Refusal(
                "bad_request", "input is a text or a non-empty list of texts (token numbers are not taken)"
            )
        form = request.get("encoding_format", "float")
        if form not in ("float", "base64"):
            raise Refusal("bad_request", f'encoding_format is "float" or "base64", not {form!r}')
        return Asked(served, texts, partial(_embeddings, served, form, request.get("dimensions")), True)

    def _served(self, name: str, version: str | None) -> ServedModel:
        served = self._engine.served(name, version)
        if served.traits is not None and not served.traits.predicts:
            raise Refusal("bad_request", f"model {name} only generates; ask POST /v1/chat/completions")
        return served

    def _embedder(self, headers: Headers, name: object) -> ServedModel:
        if name is None and b"x-fleet-model" in headers:
            name = headers[b"x-fleet-model"].decode("latin-1")
        if not isinstance(name, str):
            raise Refusal("bad_request", "model is the name of a model; GET /v1/models lists them")
        served = self._engine.served(name)
        if served.traits is None or not served.traits.embeddings:
            raise Refusal("bad_request", f"model {name} gives no embeddings; ask /v1/models/{name}:predict")
        return served


def _traits(served: ServedModel) -> Traits:
    assert served.traits is not None, "a served model is loaded"
    return served.traits


def versioned(name: str) -> tuple[str, str | None]:
    """NAME or NAME/versions/VERSION."""
    plain, found, version = name.rpartition("/versions/")
    return (plain, version) if found else (name, None)


def _stacked(traits: Traits | None, instances: list[Any]) -> dict[str, Array] | None:
    """JSON numbers as one array, for a model that declares one FP32 input and has no `preprocess`.

    None: not for this model, or something is wrong with them, which the worker says by instance.
    """
    if traits is None or not traits.tensors or len(traits.inputs) != 1:
        return None
    declared = traits.inputs[0]
    if declared["datatype"] not in ("FP32", "BF16"):
        return None
    shape = declared["shape"][1:]
    try:
        found: Array = np.asarray(instances)
        if found.dtype.kind not in "biuf":
            return None
        with np.errstate(over="ignore"):
            array = found.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.ndim != len(shape) + 1 or any(
        want not in (-1, n) for n, want in zip(array.shape[1:], shape, strict=True)
    ):
        return None
    # One pass instead of three; the sum of squares is finite unless a number isn't, or is huge.
    flattened = array.reshape(-1)
    if not math.isfinite(np.vdot(flattened, flattened)) and not np.isfinite(array).all():
        return None
    return {declared["name"]: array}


def _predictions(served: ServedModel, answer: Answer) -> Reply:
    if not answer.finite:
        raise Refusal(
            "internal", f"model {served.config.name} answered NaN or infinity, which JSON can't say"
        )
    together = answer.together
    if together is not None:
        texts = together.made.get("json")
        if texts is None:
            texts = together.made["json"] = _row_texts(together.array)
        if texts:
            return Reply(b'{"predictions":[%b]}' % texts[answer.at], 200, served.json_headers)
    return Reply(dumps({"predictions": _listed(answer.rows)}), headers=served.json_headers)


def _row_texts(array: Array) -> list[bytes]:
    """Each row as JSON; empty where a row isn't a number or a vector of numbers."""
    if array.dtype.kind not in "iuf" or array.ndim > 2 or not array.size:
        return []
    text = dumps(array)
    return text[1:-1].split(b",") if array.ndim == 1 else [b"[%b]" % row for row in text[2:-2].split(b"],[")]


def _raw_reply(served: ServedModel, form: str, answer: Answer) -> Reply:
    if answer.together is not None and form == raw.BARE and answer.together.array.dtype.kind in "biuf":
        body, headers = raw.write_one(answer.together, answer.at, served.version_headers)
        return Reply(body, 200, headers)
    if not isinstance(answer.rows, np.ndarray) or answer.rows.dtype.kind not in "biuf":
        raise Refusal(
            "internal", f"model {served.config.name} gives no single array; ask for application/json"
        )
    body, headers = raw.write(form, answer.rows, served.version_headers)
    return Reply(body, headers=headers)


def _embeddings(served: ServedModel, form: str, dimensions: object, answer: Answer) -> Reply:
    name, rows = served.config.name, answer.rows
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        raise Refusal("internal", f"model {name} says embeddings = True, but its rows are no vectors")
    if not answer.finite:
        raise Refusal("internal", f"model {name} answered NaN or infinity")
    if dimensions is not None and dimensions != rows.shape[1]:
        raise Refusal("bad_request", f"model {name} gives {rows.shape[1]} dimensions, not {dimensions}")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(row) if form == "base64" else row}
        for index, row in enumerate(rows)
    ]
    reply: dict[str, Any] = {"object": "list", "data": data, "model": name}
    if answer.tokens is not None:
        reply["usage"] = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
    return Reply(dumps(reply), headers=served.json_headers)


def _listed(rows: Rows) -> Any:
    """V1's predictions: one value per instance; of named arrays an object each."""
    if isinstance(rows, dict):
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    return rows


def _encoded(row: Array) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
