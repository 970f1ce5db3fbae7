"""Bodies that are nothing but numbers: bare (`application/octet-stream`) or an .npy file (`application/x-npy`). PURE.

Bare numbers are little-endian and row-major, as many whole instances as there are, by the type and shape of the model's
one declared input. The answer comes in the same form unless `Accept` asks for JSON; bare ones name their type and shape
in headers. Source: numpy.lib.format; arrays of objects, which are pickles, are never read.
"""

from __future__ import annotations

import io
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from fleet_agent.http.call import Headers, Reply
from fleet_agent.protocol.asked import Said
from fleet_agent.served.answer import Answer, Together
from fleet_agent.served.served import ServedModel
from fleet_agent.values.packed import Layout, Packed
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


def read(form: str, body: bytes, served: ServedModel) -> dict[str, Array] | Packed:
    """The instances in the body, for a model that is loaded. Raises Refusal."""
    traits = served.traits
    assert traits is not None, "a served model is loaded"
    if form == BARE:
        layout = traits.layout
        if layout is None or layout.datatype == "BOOL":
            return _bare(body, served.config.name, layout)
        count, rest = divmod(len(body), layout.width)
        if rest or not count:
            raise _no_instances(layout, body)
        return Packed(layout, body, count)
    model = served.config.name
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
    return _little(rows).tobytes(), _headers(rows.dtype, rows.shape, more)


class Numbers:
    """How a model's answers are said in such a form."""

    def __init__(self, served: ServedModel, form: str) -> None:
        self._served = served
        self._form = form

    def reply(self, answer: Answer) -> Reply:
        """Raises Refusal `internal` for what is no array."""
        if not isinstance(answer.rows, np.ndarray) or answer.rows.dtype.kind not in "biuf":
            raise Refusal(
                "internal",
                f"model {self._served.config.name} gives no single array; ask for application/json",
            )
        body, headers = write(self._form, answer.rows, self._served.version_headers)
        return Reply(body, headers=headers)

    def each(self, together: Together) -> Said | None:
        """None for .npy files, and where a row holds no number."""
        array = together.array
        if self._form != BARE or array.dtype.kind not in "biuf" or not array.size:
            return None
        blob = _little(array).tobytes()
        width = len(blob) // len(array)
        bodies = [blob[at : at + width] for at in range(0, len(blob), width)]
        return Said(bodies, _headers(array.dtype, (1, *array.shape[1:]), self._served.version_headers))


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


def _little(array: Array) -> Array:
    return (
        array
        if array.dtype.isnative and sys.byteorder == "little"
        else array.astype(array.dtype.newbyteorder("<"))
    )


def _bare(body: bytes, model: str, layout: Layout | None) -> dict[str, Array]:
    """Of a model that takes none, or whose bytes have to be looked at."""
    if layout is None:
        raise Refusal(
            "bad_request",
            f"model {model} doesn't declare one input of numbers with a fixed shape, so bare numbers say too "
            f"little; send JSON, {NPY} or /v2 binary tensors",
        )
    count, rest = divmod(len(body), layout.width)
    if rest or not count:
        raise _no_instances(layout, body)
    return {layout.name: from_binary(layout.name, layout.datatype, [count, *layout.shape], memoryview(body))}


def _no_instances(layout: Layout, body: bytes) -> Refusal:
    return Refusal("bad_request", f"an instance is {layout.width} bytes; the body has {len(body)}")


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
