"""CUDA graphs: the launches of a forward, recorded once per batch size and replayed as one.

Source: PyTorch's "CUDA semantics", CUDA graphs: inputs live in buffers of their own, a side stream warms up before the
capture, and replays overwrite the outputs, so those are copied. Batches are filled up with zeros to the next power of
two (at most max_batch_size), which bounds how many graphs there are; a model's rows don't depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_WARM_RUNS = 3
_MOST_SHAPES = 64


@dataclass(frozen=True, slots=True)
class Recorded:
    graph: Any
    inputs: list[torch.Tensor]
    outputs: Any


class Graphs:
    """Calls `forward` through graphs. What isn't tensors with a batch dimension alone is computed without."""

    def __init__(self, forward: Callable[[Any], Any], device: torch.device, largest: int) -> None:
        self._forward = forward
        self._device = device
        self._largest = largest
        self._recorded: dict[tuple[Any, ...], Recorded] = {}
        self._pool: Any = None

    def __call__(self, batch: Any) -> Any:
        tensors = tensors_of(batch)
        if tensors is None:
            return self._forward(batch)
        count = len(tensors[0])
        size = filled(count, self._largest)
        key = (size, *((tensor.dtype, tuple(tensor.shape[1:])) for tensor in tensors))
        recorded = self._recorded.get(key)
        if recorded is None:
            if len(self._recorded) >= _MOST_SHAPES:
                return self._forward(batch)
            recorded = self._recorded[key] = self._record(batch, tensors, size)
        for buffer, tensor in zip(recorded.inputs, tensors, strict=True):
            buffer[:count].copy_(tensor)
            if count < size:
                buffer[count:].zero_()
        recorded.graph.replay()
        return first_rows(recorded.outputs, count, size)

    def _record(self, batch: Any, tensors: list[torch.Tensor], size: int) -> Recorded:
        inputs = [torch.zeros((size, *t.shape[1:]), dtype=t.dtype, device=self._device) for t in tensors]
        static: Any = dict(zip(batch, inputs, strict=True)) if isinstance(batch, dict) else inputs[0]
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_RUNS):
                self._forward(static)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: while one version is loaded, another one computes.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._forward(static)
        self._pool = graph.pool()
        return Recorded(graph, inputs, outputs)


def tensors_of(batch: Any) -> list[torch.Tensor] | None:
    """The batch's tensors if it is one, or a dict of them, all of the same length."""
    values = list(batch.values()) if isinstance(batch, dict) else [batch]
    if not values or not all(isinstance(value, torch.Tensor) and value.dim() for value in values):
        return None
    return values if len({len(value) for value in values}) == 1 else None


def filled(count: int, largest: int) -> int:
    """The batch size that `count` instances are filled up to."""
    return max(count, min(largest, 1 << max(0, count - 1).bit_length()))


def first_rows(outputs: Any, count: int, size: int) -> Any:
    """Copies without the rows that were filled in; what doesn't have `size` rows is copied whole."""
    if isinstance(outputs, torch.Tensor):
        return outputs[:count].clone() if outputs.dim() and len(outputs) == size else outputs.clone()
    if isinstance(outputs, dict):
        return {key: first_rows(value, count, size) for key, value in outputs.items()}
    if type(outputs) in (list, tuple):
        return type(outputs)(first_rows(value, count, size) for value in outputs)
    return outputs
