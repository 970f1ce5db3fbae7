"""A program without a class of the user's: TorchScript or torch.export, as the agent runs models."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from fleet_agent.values.tensors import TensorMetadata


class Program:
    """`call` gets the tensors in the order of `names` (where those are known); one output or several come back."""

    def __init__(
        self,
        network: torch.nn.Module,
        names: list[str],
        inputs: list[TensorMetadata],
        outputs: list[TensorMetadata],
        call: Callable[..., Any] | None = None,
    ) -> None:
        self.network = network
        self.inputs = inputs
        self.outputs = outputs
        self._names = names
        self._call = network if call is None else call

    def forward(self, batch: Any) -> Any:
        """Raises ValueError for inputs that the program doesn't have."""
        if not isinstance(batch, dict):
            if len(self._names) > 1:
                raise ValueError(f"the program takes the inputs {', '.join(self._names)}; send all, by name")
            return self._named(self._call(batch))
        if not self._names:
            return self._named(self._call(**batch))
        if set(batch) != set(self._names):
            raise ValueError(f"the program takes the inputs {', '.join(self._names)}, not {', '.join(batch)}")
        return self._named(self._call(*(batch[name] for name in self._names)))

    def warmup(self) -> list[Any]:
        """One instance of zeros, where the shapes are known; sizes that may be anything are 1."""
        if not self.inputs:
            return []
        zeros = {tensor["name"]: _zeros(tensor["shape"][1:]) for tensor in self.inputs}
        return [next(iter(zeros.values())) if len(zeros) == 1 else zeros]

    def _named(self, outputs: Any) -> Any:
        if isinstance(outputs, tuple | list) and all(isinstance(o, torch.Tensor) for o in outputs):
            if len(outputs) == 1:
                return outputs[0]
            known = [tensor["name"] for tensor in self.outputs]
            names = known if len(known) == len(outputs) else [f"output{i}" for i in range(len(outputs))]
            return dict(zip(names, outputs, strict=True))
        return outputs


def _zeros(shape: list[int]) -> Any:
    """Nested lists, as a client would send them."""
    sizes = [1 if size == -1 else size for size in shape]
    flat: list[Any] = [0] * prod(sizes)
    for size in reversed(sizes[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return flat if sizes else 0
