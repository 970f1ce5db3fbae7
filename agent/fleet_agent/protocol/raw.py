"""Bodies that are nothing but numbers: bare (`application/octet-stream`) or an .npy file (`application/x-npy`). PURE.

Bare numbers are little-endian and row-major, as many whole instances as there are, by the type and shape of the model's
one declared input. The answer comes in the same form unless `Accept` asks for JSON; bare ones name their type and shape
in headers. Source: numpy.lib.format; arrays of objects, which are pickles, are never read.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np

from fleet_agent.http.call import Headers
from fleet_agent.served.answer import Together
from fleet_agent.served.traits import Traits
from fleet_agent.values.tensors import DTYPES, Array, TensorMetadata, datatype_of, from_binary
from fleet_wire.refusal import Refusal

BARE = "application/octet-stream"
NPY = "application/x-npy"
_FORMS = {BARE.encode(): BARE, NPY.encode(): NPY}


def form_of(headers: Headers) -> str | None:
    """BARE or NPY by Content-Type, None for every other."""
    return _FORMS.get(headers.get(b"content-type", b""))


def answer_form(headers: Headers, form: str) -> str | None:
    """In what form to answer a body of that form; None: JSON."""
    accept = headers.get(b"accept", b"*/*")
    return None if accept == b"application/json" else _FORMS.get(accept, form)


def read(form: str, body: bytes, model: str, traits: Traits) -> dict[str, Array]:
    """The instances in the body, under the input's name. Raises Refusal."""
    if form == BARE:
        return _bare(body, model, traits)
    array = _npy(body)
    if not array.ndim or not len(array):
        raise Refusal("bad_request", "the array's first dimension is the instances, one at least")
    if not traits.inputs:
        return {"input0": array}
    if len(traits.inputs) > 1:
        raise Refusal("bad_request", f"model {model} takes {len(traits.inputs)} inputs; use /v2 for them")
    declared = traits.inputs[0]
    wanted = DTYPES.get(declared["datatype"])
    if wanted is None or array.dtype != wanted:
        own = datatype_of(array) if array.dtype.kind in "biuf" else str(array.dtype)
        raise Refusal("bad_request", f"model {model} takes {declared['datatype']}, the array is {own}")
    _check_shape(array.shape, declared)
    return {declared["name"]: array}


def write(
    form: str, rows: Array, more: tuple[tuple[bytes, bytes], ...]
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """The rows as a body with its headers, and `more` headers behind them."""
    if form == NPY:
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asarray(rows), allow_pickle=False)
        return file.getvalue(), ((b"content-type", NPY.encode()), *more)
    little = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    return little.tobytes(), _headers(little.dtype, little.shape, more)


def write_one(
    together: Together, at: int, more: tuple[tuple[bytes, bytes], ...]
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """The same as bare numbers, of one row of a batch."""
    made = together.made.get(BARE)
    if made is None:
        body, _ = write(BARE, together.array, ())
        shape = (1, *together.array.shape[1:])
        headers = _headers(together.array.dtype.newbyteorder("<"), shape, more)
        made = together.made[BARE] = (body, len(body) // len(together.array), headers)
    body, width, headers = made
    return body[at * width : (at + 1) * width], headers


@lru_cache(maxsize=256)
def _headers(
    dtype: np.dtype[Any], shape: tuple[int, ...], more: tuple[tuple[bytes, bytes], ...]
) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"content-type", BARE.encode()),
        (b"x-fleet-datatype", datatype_of(np.empty(0, dtype)).encode()),
        (b"x-fleet-shape", ",".join(map(str, shape)).encode()),
        *more,
    )


def _bare(body: bytes, model: str, traits: Traits) -> dict[str, Array]:
    if traits.bare is None:
        raise Refusal(
            "bad_request",
            f"model {model} doesn't declare one input of numbers with a fixed shape, so bare numbers say too "
            f"little; send JSON, {NPY} or /v2 binary tensors",
        )
    name, datatype, shape, row = traits.bare
    count, rest = divmod(len(body), row)
    if rest or not count:
        raise Refusal("bad_request", f"an instance is {row} bytes; the body has {len(body)}")
    if datatype == "BOOL":
        return {name: from_binary(name, datatype, [count, *shape], memoryview(body))}
    return {name: np.frombuffer(body, DTYPES[datatype]).reshape(count, *shape)}


def _npy(body: bytes) -> Array:
    try:
        array: Array = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, KeyError, TypeError) as error:
        raise Refusal("bad_request", f"the body is no .npy file of numbers: {error}") from None
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")) if array.dtype.kind in "biuf" else array


def _check_shape(shape: tuple[int, ...], declared: TensorMetadata) -> None:
    wanted = declared["shape"]
    if len(shape) != len(wanted) or any(w not in (-1, n) for n, w in zip(shape, wanted, strict=True)):
        raise Refusal(
            "bad_request", f"input {declared['name']!r} has the shape {wanted} (-1: any), not {list(shape)}"
        )
