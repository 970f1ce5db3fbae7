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
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson

from fleet_agent import raw
from fleet_agent.call import Headers, Reply, parse_json
from fleet_agent.engine import Engine
from fleet_agent.payload import Payload, Rows
from fleet_agent.served import Answer, ServedModel, Traits
from fleet_agent.tensors import (
    Array,
    TensorMetadata,
    checked_shape,
    datatype_of,
    from_binary,
    from_json,
    to_binary,
    to_json,
)
from fleet_agent.vectors import VectorReader
from fleet_wire.refusal import Refusal

_BINARY = (b"content-type", b"application/octet-stream")
_HEADER_LENGTH = b"inference-header-content-length"

# Parameters of a V2 request that ask for something this server doesn't do; the others are hints.
_REFUSED_PARAMETERS = (
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "shared_memory_region",
    "classification",
)


@dataclass(slots=True)
class Asked:
    """A request that was understood. `reply` turns the engine's answer into the client's; it may raise Refusal."""

    served: ServedModel
    payload: Payload
    reply: Callable[[Answer], Reply]
    wants_tokens: bool = False


Work = Callable[[Headers, bytes], Asked]


class Inference:
    """Understands calls. `route` finds who does, by the path; that one takes headers and body and raises Refusal."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._vectors = VectorReader()

    def route(self, path: str) -> Work | None:
        """None: no call to a model of our own has that path; with outside engines about, the body may have to decide."""
        if self._engine.outside and (path == "/v1/embeddings" or self._engine.outside.named(path)):
            return None
        if path.startswith("/v1/models/") and path.endswith(":predict"):
            return partial(self.predict, *versioned(path[len("/v1/models/") : -len(":predict")]))
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            return partial(self.infer, *versioned(path[len("/v2/models/") : -len("/infer")]))
        if path == "/v1/embeddings":
            return self.embed
        return None

    def predict(self, name: str, version: str | None, headers: Headers, body: bytes) -> Asked:
        """V1: {"instances": [...]} -> {"predictions": [...]}; raw numbers or an .npy file by Content-Type."""
        served = self._served(name, version)
        form = raw.form_of(headers)
        if form is not None:
            array = raw.read(form, body, served.config.name, _traits(served))
            answers_in = raw.answer_form(headers, form)
            if answers_in is not None:
                return Asked(served, array, partial(_raw_reply, served, answers_in))
            return Asked(served, array, partial(_predictions, served))
        vector = None if served.traits is None else served.traits.vector
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

    def infer(self, name: str, version: str | None, headers: Headers, body: bytes) -> Asked:
        """V2: tensors as JSON or as binary data, in and out."""
        served = self._served(name, version)
        head, binary = _cut_head(body, headers.get(_HEADER_LENGTH))
        request = parse_json(head)
        if (
            not isinstance(request, dict)
            or not isinstance(request.get("inputs"), list)
            or not request["inputs"]
        ):
            raise Refusal("bad_request", 'the body is {"inputs": [{name, shape, datatype, data}, ...]}')
        parameters = _parameters(request, "the request")
        payload = self._inputs(served, request["inputs"], binary)
        return Asked(
            served,
            payload,
            partial(_tensor_reply, served, request, bool(parameters.get("binary_data_output"))),
        )

    def embed(self, headers: Headers, body: bytes) -> Asked:
        """OpenAI embeddings: {"input": text or texts, "model", "encoding_format"} -> one vector per text."""
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

    def _inputs(self, served: ServedModel, inputs: list[Any], binary: memoryview) -> dict[str, Array]:
        """The request's tensors by name, checked against what the model declares. Raises Refusal."""
        declared = (
            {} if served.traits is None else {tensor["name"]: tensor for tensor in served.traits.inputs}
        )
        arrays: dict[str, Array] = {}
        for item in inputs:
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise Refusal("bad_request", "each input is an object with name, shape, datatype and data")
            name, datatype = item["name"], item.get("datatype")
            if name in arrays:
                raise Refusal("bad_request", f"input {name!r} comes twice")
            if not isinstance(datatype, str):
                raise Refusal("bad_request", f"input {name!r} has no datatype")
            shape = checked_shape(item.get("shape"), name)
            if declared:
                _check_declared(name, datatype, shape, declared)
            size = _parameters(item, f"input {name!r}").get("binary_data_size")
            if size is None:
                arrays[name] = from_json(name, datatype, shape, item.get("data"))
                continue
            if type(size) is not int or not 0 <= size <= binary.nbytes:
                raise Refusal("bad_request", f"input {name!r}: binary_data_size {size!r} is not in the body")
            arrays[name] = from_binary(name, datatype, shape, binary[:size])
            binary = binary[size:]
        if binary.nbytes:
            raise Refusal("bad_request", f"{binary.nbytes} bytes at the body's end belong to no input")
        missing = sorted(set(declared) - set(arrays))
        if missing:
            raise Refusal("bad_request", f"input {missing[0]!r} is missing")
        counts = {array.shape[0] for array in arrays.values()}
        if len(counts) != 1 or 0 in counts:
            raise Refusal(
                "bad_request", f"the inputs' first dimension is the batch size, not {sorted(counts)}"
            )
        return arrays


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
    return Reply(_dumps({"predictions": _listed(answer.rows)}), headers=served.json_headers)


def _raw_reply(served: ServedModel, form: str, answer: Answer) -> Reply:
    if not isinstance(answer.rows, np.ndarray) or answer.rows.dtype.kind not in "biuf":
        raise Refusal(
            "internal", f"model {served.config.name} gives no single array; ask for application/json"
        )
    body, headers = raw.write(form, answer.rows)
    return Reply(body, headers=(*headers, *served.version_headers))


def _tensor_reply(served: ServedModel, request: dict[str, Any], binary: bool, answer: Answer) -> Reply:
    tensors = _tensors(served, answer.rows)
    return _v2_reply(served, request.get("id"), tensors, _wanted(request, tensors, binary))


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
    return Reply(_dumps(reply), headers=served.json_headers)


def _cut_head(body: bytes, length: bytes | None) -> tuple[bytes, memoryview]:
    """The JSON part and the binary part of a V2 body."""
    if length is None:
        return body, memoryview(b"")
    if not length.isdigit() or not 0 < int(length) <= len(body):
        raise Refusal("bad_request", "Inference-Header-Content-Length is not within the body")
    return body[: int(length)], memoryview(body)[int(length) :]


def _parameters(item: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refusal("bad_request", f"the parameters of {where} are an object")
    for name in _REFUSED_PARAMETERS:
        if parameters.get(name):
            raise Refusal("bad_request", f"the parameter {name} of {where} is not supported here")
    return parameters


def _check_declared(name: str, datatype: str, shape: list[int], declared: dict[str, TensorMetadata]) -> None:
    tensor = declared.get(name)
    if tensor is None:
        raise Refusal("bad_request", f"there is no input {name!r}; the model takes {', '.join(declared)}")
    if datatype != tensor["datatype"]:
        raise Refusal("bad_request", f"input {name!r} is {tensor['datatype']}, not {datatype}")
    wanted = tensor["shape"]
    if len(shape) != len(wanted) or any(w not in (-1, n) for n, w in zip(shape, wanted, strict=True)):
        raise Refusal("bad_request", f"input {name!r} has the shape {wanted} (-1: any), not {shape}")


def _tensors(served: ServedModel, rows: Rows) -> dict[str, tuple[str, Array]]:
    """The answer as named tensors with their datatypes, in the declared order."""
    declared = [] if served.traits is None else served.traits.outputs
    first = declared[0]["name"] if declared else "output0"
    arrays = rows if isinstance(rows, dict) else {first: _array(served, rows)}
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in declared}
    names = [name for name in datatypes if name in arrays] + [
        name for name in arrays if name not in datatypes
    ]
    return {name: _typed(arrays[name], datatypes.get(name)) for name in names}


def _typed(array: Array, datatype: str | None) -> tuple[str, Array]:
    own = datatype_of(array)
    if datatype is None or datatype == own or (datatype == "BF16" and own == "FP32"):
        return datatype or own, array
    raise Refusal("internal", f"the model declares {datatype} for an output and gave {own}")


def _array(served: ServedModel, rows: Array | list[Any]) -> Array:
    if isinstance(rows, np.ndarray):
        return rows
    try:
        array = np.array(rows, dtype=object) if isinstance(rows[0], str | bytes) else np.array(rows)
    except ValueError:
        array = np.empty(0, dtype=object)
    mixed = array.dtype == object and not all(isinstance(value, str | bytes) for value in array.flat)
    if mixed or not array.size:
        raise Refusal(
            "internal", f"model {served.config.name}'s rows differ in shape and make no tensor; use V1"
        )
    return array


def _wanted(request: dict[str, Any], tensors: dict[str, tuple[str, Array]], binary: bool) -> dict[str, bool]:
    """Which outputs to send, and whether as binary data."""
    outputs = request.get("outputs")
    if not outputs:
        return dict.fromkeys(tensors, binary)
    wanted: dict[str, bool] = {}
    for item in outputs if isinstance(outputs, list) else [None]:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(item, dict) or name not in tensors:
            raise Refusal("bad_request", f"there is no output {name!r}; the model gives {', '.join(tensors)}")
        wanted[name] = bool(_parameters(item, f"output {name!r}").get("binary_data", binary))
    return wanted


def _v2_reply(
    served: ServedModel, request: object, tensors: dict[str, tuple[str, Array]], wanted: dict[str, bool]
) -> Reply:
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, as_binary in wanted.items():
        datatype, array = tensors[name]
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if as_binary:
            blob = to_binary(array, datatype)
            output["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            output["data"] = to_json(array)
        outputs.append(output)
    config = served.config
    reply: dict[str, Any] = {"model_name": config.name, "model_version": config.version, "outputs": outputs}
    if request is not None:
        reply["id"] = request
    head = _dumps(reply)
    if not blobs:
        return Reply(head, headers=served.json_headers)
    headers = (_BINARY, (_HEADER_LENGTH, b"%d" % len(head)), *served.version_headers)
    return Reply(b"".join([head, *blobs]), headers=headers)


def _listed(rows: Rows) -> Any:
    """V1's predictions: one value per instance; of named arrays an object each."""
    if isinstance(rows, dict):
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    return rows


def _encoded(row: Array) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _dumps(value: object) -> bytes:
    """Raises Refusal `internal` for what a model gave and JSON can't say (bytes, say)."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)
    except orjson.JSONEncodeError as error:
        raise Refusal("internal", f"the model's output can't be said in JSON: {error}") from None


def _plain(value: object) -> object:
    """What orjson doesn't take by itself: arrays of objects or of half precision, single numbers in an array type."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
