"""The calls that go to a model: KServe V1 predict, Open Inference Protocol (V2) infer, OpenAI embeddings.

Each is read into an `Asked`, what to compute and how to say the answer, which does no waiting; who waits, and how, is
the business of server.py and hot.py.

Sources: KServe "V1 protocol"; KServe "Open Inference Protocol" with Triton's binary tensor data extension; OpenAI
"Create embeddings"; numpy's format of .npy files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fleet_agent.engine.engine import Engine
from fleet_agent.http.call import Headers, parse_json
from fleet_agent.protocol import raw, tensorcall
from fleet_agent.protocol.asked import Asked, Saying
from fleet_agent.protocol.embeddings import Embeddings
from fleet_agent.protocol.predictions import Predictions
from fleet_agent.served.served import ServedModel
from fleet_agent.served.traits import Traits
from fleet_agent.values.packed import Packed
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
        payload = raw.read(form, body, served)
        return served, payload, served.sayings.get(answers_in) or _saying(served, answers_in), False

    def _instances(self, name: str, version: str | None, body: bytes) -> Asked:
        served = self._served(name, version)
        traits = _traits(served)
        saying = served.sayings.get(None) or _saying(served, None)
        if traits.vector is not None:
            name, width = traits.vector
            rows = self._vectors.rows(body, width)
            if rows is not None:
                layout = traits.layout
                if layout is None or layout.datatype != "FP32":
                    return served, {name: rows}, saying, False
                return served, Packed(layout, rows.data, len(rows)), saying, False
        request = parse_json(body)
        instances = request.get("instances") if isinstance(request, dict) else None
        if not isinstance(instances, list):
            raise Refusal("bad_request", 'the body is {"instances": [...]}, one value per instance')
        if not instances:
            raise Refusal("bad_request", "instances is empty: there is nothing to predict")
        return served, _stacked(traits, instances) or instances, saying, False

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
        return served, texts, Embeddings(served, form, request.get("dimensions")), True

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


def _stacked(traits: Traits, instances: list[Any]) -> dict[str, Array] | None:
    """JSON numbers as one array, for a model that declares one FP32 input and has no `preprocess`.

    None: not for this model, or something is wrong with them, which the worker says by instance.
    """
    if not traits.tensors or len(traits.inputs) != 1:
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


def _saying(served: ServedModel, form: str | None) -> Saying:
    """How answers of that form (None: JSON) are said; kept with the model from then on."""
    made: Saying = Predictions(served) if form is None else raw.Numbers(served, form)
    served.sayings[form] = made
    return made
