"""The default `preprocess`: what clients sent as tensors on the device, one per input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from fleet_agent.model.faults import InputFault
from fleet_agent.values.payload import Payload, unpacked
from fleet_agent.values.tensors import DTYPES, TensorMetadata

Batch: TypeAlias = "torch.Tensor | dict[str, torch.Tensor]"


class Inputs:
    """Makes batches for a model that declares `inputs` (or none: then numbers are float32 and any shape is taken).

    `pinned`: through page-locked memory, so that the copy to a GPU needs no second one and doesn't hold up the host.
    """

    def __init__(self, inputs: list[TensorMetadata], device: torch.device, pinned: bool) -> None:
        self._inputs = inputs
        self._device = device
        self._pinned = pinned and device.type == "cuda"

    def batch(self, payload: Payload) -> Batch:
        """One tensor, or one per name. Raises InputFault."""
        payload = unpacked(payload)
        if isinstance(payload, dict):
            tensors = {name: self._tensor(_numbers(name, array)) for name, array in payload.items()}
            return next(iter(tensors.values())) if len(tensors) == 1 else tensors
        if isinstance(payload[0], dict):
            names = list(payload[0])
            for index, instance in enumerate(payload):
                if not isinstance(instance, dict) or set(instance) != set(names):
                    raise InputFault(f"instance {index}: expected an object with the keys {', '.join(names)}")
            return {n: self._tensor(self._from_json(n, [i[n] for i in payload])) for n in names}
        return self._tensor(self._from_json(None, payload))

    def _tensor(self, array: Any) -> torch.Tensor:
        if not array.flags.writeable:
            array = array.copy()
        tensor = torch.from_numpy(array)
        if self._pinned:
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def _declared(self, name: str | None) -> TensorMetadata | None:
        if not self._inputs:
            return None
        if name is None:
            return self._inputs[0]
        return next((tensor for tensor in self._inputs if tensor["name"] == name), None)

    def _from_json(self, name: str | None, values: Sequence[Any]) -> Any:
        declared = self._declared(name)
        dtype = (
            np.dtype(np.float32)
            if declared is None
            else DTYPES.get(declared["datatype"], np.dtype(np.float32))
        )
        shape = None if declared is None else declared["shape"][1:]
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(values, dtype=dtype)
            ok = (shape is None or _fits(array.shape[1:], shape)) and bool(np.isfinite(array).all())
        except (ValueError, TypeError, OverflowError):
            ok = False
        if not ok:
            raise InputFault(_first_misfit(values, dtype, shape))
        return array


def _numbers(name: str, array: Any) -> Any:
    if array.dtype == object:
        raise InputFault(f"input {name!r}: the model takes numbers, not BYTES")
    return array


def _first_misfit(values: Sequence[Any], dtype: np.dtype[Any], shape: list[int] | None) -> str:
    """The first instance that isn't numbers of the wanted shape; without a declared one, of the first one's shape."""
    wanted = shape
    for index, value in enumerate(values):
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(value, dtype=dtype)
        except (ValueError, TypeError, OverflowError) as error:
            return f"instance {index}: expected numbers ({dtype.name}): {error}"
        if wanted is not None and not _fits(array.shape, wanted):
            return f"instance {index}: expected shape {wanted}, got {list(array.shape)}"
        if not np.isfinite(array).all():
            return f"instance {index}: a number is too large for {dtype.name}"
        wanted = list(array.shape) if wanted is None else wanted
    return f"the instances can't be made one array of {dtype.name}"


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))
