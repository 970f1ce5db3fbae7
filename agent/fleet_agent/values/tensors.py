"""The Open Inference Protocol's tensors as numpy arrays, and back. PURE.

Source: KServe "Open Inference Protocol (V2)", tensor data types, and Triton's binary tensor data extension
(raw little-endian row-major data; BYTES elements as a 4-byte length followed by the bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from fleet_wire.refusal import Refusal

Array = npt.NDArray[Any]

# datatype -> numpy's. BF16 has none: it travels as its 16 bits and is FP32 to the model. BYTES are objects.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_DIMENSIONS = 32


class TensorMetadata(TypedDict):
    """One input or output of a model; -1 in the shape is any size, the first dimension is the batch."""

    name: str
    datatype: str
    shape: list[int]


def checked_metadata(value: object, where: str) -> list[TensorMetadata]:
    """A model's `inputs` or `outputs` attribute, checked. Raises ValueError saying what is wrong where."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{where} is a list of {{name, datatype, shape}}, not {type(value).__name__}")
    tensors: list[TensorMetadata] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict) or set(item) != {"name", "datatype", "shape"}:
            raise ValueError(f"{where}[{index}] has exactly the keys name, datatype and shape")
        name, datatype, shape = item["name"], item["datatype"], item["shape"]
        if datatype not in DTYPES and datatype not in ("BYTES", "BF16"):
            known = ", ".join([*DTYPES, "BF16", "BYTES"])
            raise ValueError(f"{where}[{index}].datatype is one of {known}, not {datatype!r}")
        if not isinstance(shape, Sequence) or not shape or not all(type(n) is int and n >= -1 for n in shape):
            raise ValueError(f"{where}[{index}].shape is a list of whole numbers (-1: any), not {shape!r}")
        tensors.append({"name": str(name), "datatype": datatype, "shape": list(shape)})
    return tensors


def checked_shape(shape: object, name: str) -> list[int]:
    """A request's shape. Raises Refusal."""
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        raise Refusal(
            "bad_request", f"input {name!r}: shape is a list of whole numbers, the batch size first"
        )
    if len(shape) > _MAX_DIMENSIONS:
        raise Refusal(
            "bad_request", f"input {name!r}: {len(shape)} dimensions, at most {_MAX_DIMENSIONS} are taken"
        )
    return shape


def from_json(name: str, datatype: str, shape: list[int], data: object) -> Array:
    """A tensor from JSON `data`, flat or nested. Raises Refusal where data, datatype and shape don't agree."""
    if not isinstance(data, list):
        raise Refusal("bad_request", f"input {name!r}: data is a list, not {_json_type(data)}")
    if datatype == "BYTES":
        return _bytes_from_json(name, shape, data)
    dtype = np.dtype("<f4") if datatype == "BF16" else DTYPES.get(datatype)
    if dtype is None:
        raise _unknown_datatype(name, datatype)
    try:
        raw = np.array(data)
        if dtype.kind == "u" and raw.dtype.kind == "f":  # whole numbers over 2**63 beside smaller ones
            raw = np.array(data, dtype=object)
            raw = np.array(data, dtype=np.uint64) if all(type(n) is int for n in raw.flat) else np.array(data)
    except (ValueError, OverflowError) as error:
        raise Refusal("bad_request", f"input {name!r}: data is ragged or not numbers: {error}") from None
    if raw.size:
        _check_kind(name, datatype, dtype, raw)
    if raw.size != prod(shape):
        raise Refusal(
            "bad_request", f"input {name!r}: shape {shape} wants {prod(shape)} elements, data has {raw.size}"
        )
    with np.errstate(over="ignore"):
        array = raw.astype(dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal("bad_request", f"input {name!r}: a number is too large for {datatype}")
    return array


def from_binary(name: str, datatype: str, shape: list[int], raw: memoryview) -> Array:
    """A tensor from the binary extension's bytes. Raises Refusal where their number isn't the shape's."""
    count = prod(shape)
    if datatype == "BYTES":
        return _bytes_from_binary(name, shape, raw)
    dtype = np.dtype("<u2") if datatype == "BF16" else DTYPES.get(datatype)
    if dtype is None:
        raise _unknown_datatype(name, datatype)
    if raw.nbytes != count * dtype.itemsize:
        wanted = count * dtype.itemsize
        raise Refusal("bad_request", f"input {name!r}: {datatype}{shape} is {wanted} bytes, not {raw.nbytes}")
    array = np.frombuffer(raw, dtype=dtype).reshape(shape)
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if datatype == "BOOL" and raw.nbytes and array.view(np.uint8).max() > 1:
        raise Refusal("bad_request", f"input {name!r}: a BOOL is the byte 0 or 1")
    return array


def datatype_of(array: Array) -> str:
    """The protocol's name for an array's type; text and bytes are BYTES. Raises Refusal `internal` for others."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise Refusal(
            "internal", f"the model's output has the type {array.dtype}, which the protocol doesn't know"
        )
    return name


def to_json(array: Array) -> Any:
    """What to put under `data`: flat, row-major. Raises Refusal where JSON cannot say it."""
    if array.dtype.kind in "OUS":
        return [_text(value) for value in array.flat]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise Refusal(
                "internal", "the output has NaN or infinity, which JSON can't say; ask for binary data"
            )
        if array.dtype.itemsize == 2:
            array = array.astype(np.float32)
    return np.ascontiguousarray(array).reshape(-1)


def to_binary(array: Array, datatype: str) -> bytes:
    """The binary extension's bytes of an output of that datatype."""
    if datatype == "BYTES":
        values = [_encoded(value) for value in array.flat]
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    if datatype == "BF16":
        # Round to nearest even, as torch does.
        bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array, dtype=DTYPES[datatype]).tobytes()


def _check_kind(name: str, datatype: str, dtype: np.dtype[Any], raw: Array) -> None:
    """Numbers are taken as what they are: 1.5 is no INT32, 300 no INT8, true no FP32."""
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if raw.dtype.kind not in kinds:
        found = {"b": "booleans", "f": "fractions", "U": "text"}.get(raw.dtype.kind, "mixed or nested values")
        raise Refusal("bad_request", f"input {name!r}: datatype is {datatype}, but data has {found}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(raw.min()) < limits.min or int(raw.max()) > limits.max:
            raise Refusal("bad_request", f"input {name!r}: a number is outside {datatype}")


def _bytes_from_json(name: str, shape: list[int], data: list[Any]) -> Array:
    flat: list[str] = []
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            if not isinstance(value, str):
                raise Refusal(
                    "bad_request", f"input {name!r}: BYTES in JSON are strings, not {_json_type(value)}"
                )
            flat.append(value)
        else:
            stack.pop()
    if len(flat) != prod(shape):
        raise Refusal(
            "bad_request", f"input {name!r}: shape {shape} wants {prod(shape)} strings, data has {len(flat)}"
        )
    return _objects(flat, shape)


def _bytes_from_binary(name: str, shape: list[int], raw: memoryview) -> Array:
    values: list[str | bytes] = []
    at = 0
    while at < raw.nbytes:
        if at + 4 > raw.nbytes:
            raise Refusal("bad_request", f"input {name!r}: BYTES end within a length")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > raw.nbytes:
            raise Refusal(
                "bad_request", f"input {name!r}: an element says {length} bytes, {raw.nbytes - at} are left"
            )
        value = bytes(raw[at : at + length])
        at += length
        try:
            values.append(value.decode())
        except UnicodeDecodeError:
            values.append(value)
    if len(values) != prod(shape):
        raise Refusal(
            "bad_request", f"input {name!r}: shape {shape} wants {prod(shape)} elements, not {len(values)}"
        )
    return _objects(values, shape)


def _objects(values: Sequence[str | bytes], shape: list[int]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise Refusal(
                "internal", "an output's bytes are no UTF-8, which JSON can't say; ask for binary"
            ) from None
    return str(value)


def _unknown_datatype(name: str, datatype: str) -> Refusal:
    known = ", ".join([*DTYPES, "BF16", "BYTES"])
    return Refusal("bad_request", f"input {name!r}: datatype {datatype!r} is none of {known}")


def _json_type(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        dict: "an object",
        list: "a list",
    }
    return names.get(type(value), "null")
