"""The Open Inference Protocol's infer call: tensors as JSON or as binary data, in and out.

A client that sends binary tensors sends the same JSON head with every request of a shape. What was understood about
such a head is kept with the model (`Form`), so that the next request with it costs a look-up and no JSON.

Source: KServe "Open Inference Protocol" with Triton's binary tensor data extension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleet_agent.http.call import Reply, parse_json
from fleet_agent.protocol.asked import Asked, Said, dumps
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import ServedModel
from fleet_agent.values.packed import Layout, Packed
from fleet_agent.values.payload import Payload, Rows
from fleet_agent.values.tensors import (
    DTYPES,
    Array,
    TensorMetadata,
    checked_shape,
    datatype_of,
    from_binary,
    from_json,
    to_binary,
    to_json,
)
from fleet_wire.refusal import Refusal

_BINARY = (b"content-type", b"application/octet-stream")
HEADER_LENGTH = b"inference-header-content-length"
_FORMS = 256  # heads known per model; a head with an id of its own isn't kept
_LONGEST_HEAD = 4096

# Parameters of a request that ask for something this server doesn't do; the others are hints.
_REFUSED_PARAMETERS = (
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "shared_memory_region",
    "classification",
)


@dataclass(slots=True, eq=False)
class Form:
    """A head whose tensors are all binary, of plain numbers, and how calls with it are answered. `inputs`: name,
    numpy's type, shape, where in the body from and how many elements; `length` of the body. `layout`: of the one input,
    where that is the model's. `heads`: the reply's JSON by the output's type and shape."""

    served: ServedModel
    request: dict[str, Any]
    binary: bool
    inputs: list[tuple[str, np.dtype[Any], list[int], int, int]]
    length: int
    layout: Layout | None = None
    heads: dict[tuple[str, tuple[int, ...]], tuple[bytes, tuple[tuple[bytes, bytes], ...], str]] = field(
        default_factory=dict
    )

    def payload(self, body: bytes) -> Payload:
        """What such a body brings."""
        if self.layout is not None:
            _, _, shape, start, _ = self.inputs[0]
            return Packed(self.layout, body[start:], shape[0])
        return {
            name: np.frombuffer(body, dtype, count, start).reshape(shape)
            for name, dtype, shape, start, count in self.inputs
        }

    def reply(self, answer: Answer) -> Reply:
        """Raises Refusal."""
        rows = answer.rows
        if not isinstance(rows, np.ndarray):
            return _tensor_reply(self.served, self.request, self.binary, answer)
        known = self._head(answer, rows)
        if isinstance(known, Reply):
            return known
        head, headers, datatype = known
        return Reply(head + to_binary(rows, datatype), headers=headers)

    def each(self, together: Together) -> Said | None:
        """None where what is wanted is JSON, or BYTES, whose lengths differ."""
        known = self._head(Answer(None, True, None, together, 0), together.array[:1])
        if isinstance(known, Reply) or known[2] == "BYTES":
            return None
        head, headers, datatype = known
        blob = to_binary(together.array, datatype)
        width = len(blob) // len(together.array)
        bodies = [head + blob[at : at + width] for at in range(0, len(blob), width)] if width else None
        return None if bodies is None else Said(bodies, headers)

    def _head(
        self, answer: Answer, rows: Array
    ) -> Reply | tuple[bytes, tuple[tuple[bytes, bytes], ...], str]:
        """What replies with such rows begin with; the whole reply where that isn't known (yet)."""
        known = self.heads.get(key := (rows.dtype.str, rows.shape))
        if known is not None:
            return known
        reply = _tensor_reply(self.served, self.request, self.binary, answer)
        for name, value in reply.headers:
            if name == HEADER_LENGTH and len(self.heads) < _FORMS:
                ((datatype, _),) = _tensors(self.served, rows).values()
                self.heads[key] = (reply.body[: int(value)], reply.headers, datatype)
        return reply


class Tensors:
    """How the answer to one call is said."""

    def __init__(self, served: ServedModel, request: dict[str, Any], binary: bool) -> None:
        self._served = served
        self._request = request
        self._binary = binary

    def reply(self, answer: Answer) -> Reply:
        """Raises Refusal."""
        return _tensor_reply(self._served, self._request, self._binary, answer)

    def each(self, together: Together) -> Said | None:
        """None: the next call may want something else."""
        return None


def read(served: ServedModel, length: bytes | None, body: bytes) -> Asked:
    """`length`: what the header HEADER_LENGTH says, None without binary tensors. Raises Refusal."""
    if length is not None and length.isdigit():
        form: Form | None = served.forms.get(body[: int(length)])
    else:
        form = None
    if form is not None and form.length == len(body):
        return served, form.payload(body), form, False
    head, binary = _cut_head(body, length)
    request = parse_json(head)
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list) or not request["inputs"]:
        raise Refusal("bad_request", 'the body is {"inputs": [{name, shape, datatype, data}, ...]}')
    as_binary = bool(_parameters(request, "the request").get("binary_data_output"))
    payload = _inputs(served, request["inputs"], binary)
    if length is not None:
        _keep(served, head, request, as_binary, len(body))
    return served, payload, Tensors(served, request, as_binary), False


def _keep(served: ServedModel, head: bytes, request: dict[str, Any], binary: bool, length: int) -> None:
    """The form of a request that was good, for the next one like it."""
    if "id" in request or len(head) > _LONGEST_HEAD:
        return
    inputs: list[tuple[str, np.dtype[Any], list[int], int, int]] = []
    start = len(head)
    for item in request["inputs"]:
        size = (item.get("parameters") or {}).get("binary_data_size")
        dtype = DTYPES.get(item["datatype"])
        if size is None or dtype is None or dtype.kind == "b":
            return
        inputs.append((item["name"], dtype, item["shape"], start, size // dtype.itemsize))
        start += size
    if len(served.forms) >= _FORMS:
        served.forms.clear()
    layout = None if served.traits is None or len(inputs) != 1 else served.traits.layout
    if layout is not None and (inputs[0][0], inputs[0][1]) != (layout.name, layout.dtype):
        layout = None
    served.forms[head] = Form(served, request, binary, inputs, length, layout)


def _inputs(served: ServedModel, inputs: list[Any], binary: memoryview) -> dict[str, Array]:
    """The request's tensors by name, checked against what the model declares. Raises Refusal."""
    declared = {} if served.traits is None else {tensor["name"]: tensor for tensor in served.traits.inputs}
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
        raise Refusal("bad_request", f"the inputs' first dimension is the batch size, not {sorted(counts)}")
    return arrays


def _tensor_reply(served: ServedModel, request: dict[str, Any], binary: bool, answer: Answer) -> Reply:
    tensors = _tensors(served, answer.rows)
    return _v2_reply(served, request.get("id"), tensors, _wanted(request, tensors, binary))


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
    head = dumps(reply)
    if not blobs:
        return Reply(head, headers=served.json_headers)
    headers = (_BINARY, (HEADER_LENGTH, b"%d" % len(head)), *served.version_headers)
    return Reply(b"".join([head, *blobs]), headers=headers)
