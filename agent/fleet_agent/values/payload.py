"""What a request brings to the model and what it gets back, as the front and the worker both see it. PURE.

A payload is a list of instances (any JSON value each), named arrays whose first dimension counts the instances, or, in
the front, the bytes of such an array (packed.py).
Rows are one array, named arrays, or a list; always one row per instance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from fleet_agent.values.packed import Data, Layout, Packed
from fleet_agent.values.tensors import Array

Payload: TypeAlias = "list[Any] | dict[str, Array] | Packed"
Rows: TypeAlias = "Array | dict[str, Array] | list[Any]"


def cut(payload: Payload, start: int, stop: int) -> Payload:
    """Instances start..stop; the payload itself where that is all of it."""
    if start == 0 and stop == count_of(payload):
        return payload
    if isinstance(payload, Packed):
        return payload.cut(start, stop)
    if isinstance(payload, list):
        return payload[start:stop]
    return {name: array[start:stop] for name, array in payload.items()}


def count_of(value: Payload | Rows) -> int:
    """How many instances or rows there are. Raises ValueError for named arrays that differ in length."""
    if isinstance(value, Packed):
        return value.count
    if isinstance(value, dict):
        if len(value) == 1:
            return len(next(iter(value.values())))
        counts = {len(array) for array in value.values()}
        if len(counts) != 1:
            raise ValueError(f"named arrays of different lengths: {sorted(counts)}")
        return counts.pop()
    return len(value)


def split(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """The rows of a batch, handed back to its parts."""
    pieces: list[Rows] = []
    at = 0
    for size in sizes:
        if isinstance(rows, dict):
            pieces.append({name: array[at : at + size] for name, array in rows.items()})
        else:
            pieces.append(rows[at : at + size])
        at += size
    return pieces


def joined(payloads: Sequence[Payload]) -> Payload:
    """Several requests' payloads as one. Where their forms differ, all become lists of instances."""
    if len(payloads) == 1:
        return payloads[0]
    payloads = [unpacked(payload) for payload in payloads]
    arrays = [payload for payload in payloads if isinstance(payload, dict)]
    if len(arrays) == len(payloads) and _alike(arrays):
        return {name: np.concatenate([payload[name] for payload in arrays]) for name in arrays[0]}
    return [instance for payload in payloads for instance in instances_of(payload)]


def rejoined(rows: Sequence[Rows]) -> Rows:
    """The rows of a request that was cut. Raises ValueError where its parts came back in different forms."""
    if len(rows) == 1:
        return rows[0]
    first = rows[0]
    if isinstance(first, dict):
        return {
            name: np.concatenate([part[name] for part in rows if isinstance(part, dict)]) for name in first
        }
    if isinstance(first, list):
        return [row for part in rows for row in part]
    return np.concatenate([part for part in rows if isinstance(part, np.ndarray)])


def instances_of(payload: Payload) -> list[Any]:
    """One value per instance: of a single array its rows, of several a dict of rows by name."""
    payload = unpacked(payload)
    if isinstance(payload, list):
        return payload
    if len(payload) == 1:
        return list(next(iter(payload.values())))
    return [dict(zip(payload, rows, strict=True)) for rows in zip(*payload.values(), strict=True)]


def is_finite(rows: Any) -> bool:
    """None of the numbers in there is NaN or infinite."""
    if isinstance(rows, np.ndarray):
        return rows.dtype.kind != "f" or bool(np.isfinite(rows).all())
    if isinstance(rows, float):
        return math.isfinite(rows)
    if isinstance(rows, dict):
        return all(is_finite(value) for value in rows.values())
    if isinstance(rows, list):
        return all(is_finite(value) for value in rows)
    return True


def unpacked(payload: Payload) -> list[Any] | dict[str, Array]:
    """As instances or arrays."""
    return payload.arrays() if isinstance(payload, Packed) else payload


def packed(payloads: Sequence[Payload]) -> tuple[Layout, list[Data]] | None:
    """The bytes of several requests, where all are packed in the same way; else None."""
    first = payloads[0]
    if not isinstance(first, Packed):
        return None
    layout = first.layout
    found: list[Data] = []
    for payload in payloads:
        if type(payload) is not Packed or (payload.layout is not layout and payload.layout != layout):
            return None
        found.append(payload.data)
    return layout, found


def stackable(payloads: Sequence[list[Any] | dict[str, Array]]) -> dict[str, list[Array]] | None:
    """By input, the arrays of several requests, where they can lie one below the other without change; else None."""
    first = payloads[0]
    if not isinstance(first, dict):
        return None
    found: dict[str, list[Array]] = {}
    for name, array in first.items():
        dtype, shape = array.dtype, array.shape[1:]
        if dtype.kind not in "biuf":
            return None
        column = found[name] = []
        for payload in payloads:
            if not isinstance(payload, dict) or len(payload) != len(first):
                return None
            other = payload.get(name)
            if other is None or other.dtype != dtype or other.shape[1:] != shape:
                return None
            column.append(other)
    return found


def _alike(arrays: Sequence[dict[str, Array]]) -> bool:
    first = {name: (array.dtype, array.shape[1:]) for name, array in arrays[0].items()}
    return all({n: (a.dtype, a.shape[1:]) for n, a in other.items()} == first for other in arrays[1:])
