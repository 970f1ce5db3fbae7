"""What a model gives back as rows that can be sent: one per instance, numbers in main memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fleet_agent.model.faults import ModelFault
from fleet_agent.values.payload import Rows, count_of
from fleet_agent.values.tensors import Array


def rows_of(outputs: Any, name: str) -> Rows:
    """`name` is the model's, for messages. Raises ModelFault for what can't be sent."""
    if isinstance(outputs, dict):
        try:
            named = {str(key): _array(value) for key, value in outputs.items()}
            count_of(named)
        except ValueError as error:
            raise ModelFault(f"{name}: outputs are {error}") from None
        return named
    if isinstance(outputs, torch.Tensor | np.ndarray):
        array: Array = _array(outputs)
        if not array.ndim:
            raise ModelFault(f"{name} returned a single number; the first dimension is one row per instance")
        return array
    if isinstance(outputs, list | tuple):
        return [_plain(row, f"{name}: output {index}") for index, row in enumerate(outputs)]
    raise ModelFault(
        f"{name} returned {type(outputs).__name__}; a tensor, a dict of tensors or a list is expected"
    )


def _array(value: Any) -> Any:
    """A tensor or something array-like as a C-ordered array in main memory; bfloat16 becomes float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype == torch.bfloat16:
            value = value.float()
        value = value.cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype.kind not in "biufO":
        raise ValueError(f"of the type {array.dtype}")
    return np.ascontiguousarray(array) if array.ndim else array


def _plain(value: Any, where: str) -> Any:
    """A row as JSON-able data and arrays. Raises ModelFault for anything else."""
    if value is None or isinstance(value, str | bool | int | float | bytes):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _array(value)
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    raise ModelFault(
        f"{where} holds a {type(value).__name__}; only numbers, text, lists, dicts and tensors can be sent"
    )
