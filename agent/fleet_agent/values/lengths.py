"""Which requests of different lengths go together, and what padding them to one length wastes. PURE.

Tensors go to a model as one array, so only those of one shape share a batch. What a model's own `preprocess` pads
(texts, mostly) can share one whatever its length, at the price of computing every instance as long as the longest: a
model that says `length_buckets = [32, 128]` gets up to 32 together, up to 128, and the longer ones. Lengths are
characters of a text, else the size of the first dimension after the batch's.

Source: TensorFlow's `bucket_by_sequence_length`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from typing import Any

from fleet_agent.values.payload import Payload, unpacked


def group_of(payload: Payload, buckets: Sequence[int] | None) -> Hashable:
    """What it has in common with those that it may share a batch with."""
    if buckets is not None:
        return bisect_left(buckets, max(lengths_of(payload), default=0))
    payload = unpacked(payload)
    if isinstance(payload, dict):
        return tuple(sorted([(name, array.shape[1:]) for name, array in payload.items()]))
    first = payload[0]
    if isinstance(first, dict):
        return tuple(sorted([(str(name), _shape(value)) for name, value in first.items()]))
    return _shape(first)


def lengths_of(payload: Payload) -> list[int]:
    """Of each instance."""
    payload = unpacked(payload)
    if isinstance(payload, dict):
        array = next(iter(payload.values()))
        if array.dtype == object:
            return [sum(map(_length, row.flat)) if hasattr(row, "flat") else _length(row) for row in array]
        return [array.shape[1] if array.ndim > 1 else 1] * len(array)
    return [_length(instance) for instance in payload]


def padding(lengths: Sequence[int]) -> tuple[int, int]:
    """Of a batch: the lengths of its instances together, and what is added to make all as long as the longest."""
    used = sum(lengths)
    return used, max(lengths, default=0) * len(lengths) - used


def checked_buckets(value: object, where: str) -> list[int] | None:
    """A model's `length_buckets` attribute, checked. Raises ValueError saying what is wrong where."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value or not all(type(n) is int and n > 0 for n in value):
        raise ValueError(f"{where} is a list of whole numbers over 0, not {value!r}")
    if list(value) != sorted(set(value)):
        raise ValueError(f"{where} is in ascending order, without doubles, not {value!r}")
    return list(value)


def _length(instance: Any) -> int:
    if isinstance(instance, dict):
        instance = next(iter(instance.values()), "")
    return len(instance) if isinstance(instance, str | bytes | list) else 1


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)
