"""How a model computes: dtype, autocast, torch.compile, channels_last, CUDA graphs. Applied once, used by every batch.

They act on the torch modules that the model's object keeps in its attributes, or on the object itself where it is one.
On a CPU dtype, autocast, channels_last and compile are as real as on a GPU (compile where there is a C++ compiler);
cuda_graphs and pinned_memory have nothing to act on there, and the log says so.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from fleet_agent.model.faults import ModelFault
from fleet_agent.model.graphs import Graphs
from fleet_wire.agent import ModelConfig

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MEMORY_DIMENSIONS = 4


class Prepared:
    """`forward` of the model with the options around it. Raises ModelFault where one can't be had for this model."""

    def __init__(self, config: ModelConfig, instance: Any, device: torch.device) -> None:
        compute = config.compute
        name = f"model {config.name}"
        self._dtype = None if compute.dtype is None else DTYPES[compute.dtype]
        self._channels_last = compute.channels_last
        self._plain = self._dtype is None and not self._channels_last
        wanted = [
            option
            for option, on in (
                ("dtype", compute.dtype),
                ("compile", compute.compile),
                ("channels_last", compute.channels_last),
            )
            if on
        ]
        modules = _modules(instance)
        if wanted and not modules:
            raise ModelFault(
                f"{name}: compute.{wanted[0]} is set, but {type(instance).__name__} keeps no torch.nn.Module in an "
                "attribute to apply it to; keep the network in one (self.network = ...), or leave the option out"
            )
        for module in modules:
            if self._dtype is not None:
                _check_dtype(name, config)
                module.to(self._dtype)
            if self._channels_last:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if compute.compile:
                _compile(name, config, module, device)
        # A module's own __call__ is what is compiled; its bare forward isn't.
        forward: Callable[[Any], Any] = (
            instance if isinstance(instance, torch.nn.Module) else getattr(instance, "forward", _no_forward)
        )
        forward = autocast_of(config, forward, device)
        if compute.cuda_graphs and device.type == "cuda":
            forward = Graphs(forward, device, config.max_batch_size)
        for option, on in (("cuda_graphs", compute.cuda_graphs), ("pinned_memory", compute.pinned_memory)):
            if on and device.type != "cuda":
                log.warning("%s: compute.%s does nothing on %s", name, option, device)
        self._forward = forward

    def __call__(self, batch: Any) -> Any:
        return self._forward(batch if self._plain else self._fitted(batch))

    def _fitted(self, batch: Any) -> Any:
        """Floating-point tensors in the weights' dtype, images in their memory format; the rest as it is."""
        if isinstance(batch, torch.Tensor):
            if self._dtype is not None and batch.is_floating_point():
                batch = batch.to(self._dtype)
            if self._channels_last and batch.dim() == _MEMORY_DIMENSIONS:
                batch = batch.contiguous(memory_format=torch.channels_last)
            return batch
        if isinstance(batch, dict):
            return {key: self._fitted(value) for key, value in batch.items()}
        if type(batch) in (list, tuple):
            return type(batch)(self._fitted(value) for value in batch)
        return batch


def _modules(instance: Any) -> list[torch.nn.Module]:
    if isinstance(instance, torch.nn.Module):
        return [instance]
    return [value for value in vars(instance).values() if isinstance(value, torch.nn.Module)]


def _check_dtype(name: str, config: ModelConfig) -> None:
    if config.format == "export" and config.compute.dtype is not None:
        raise ModelFault(
            f"{name}: compute.dtype: an exported program keeps the dtype that it was exported with; export it as "
            f"{config.compute.dtype}, or use compute.autocast"
        )


def _compile(name: str, config: ModelConfig, module: torch.nn.Module, device: torch.device) -> None:
    """In place. Shapes are dynamic from the start: a batch of one and a larger one at warm-up compile all there is."""
    if config.format == "torchscript":
        raise ModelFault(
            f"{name}: compute.compile: torch.compile can't see into a TorchScript program; export the model with "
            "torch.export (format: export), or leave the option out"
        )
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None and shutil.which("clang++") is None:
        log.warning("%s: compute.compile does nothing: there is no C++ compiler (%s) here", name, compiler)
        return
    module.compile(mode=config.compute.compile, dynamic=True)


def autocast_of(
    config: ModelConfig, forward: Callable[[Any], Any], device: torch.device
) -> Callable[[Any], Any]:
    """`forward`, or a step, within what `compute.autocast` says."""
    if config.compute.autocast is None:
        return forward
    dtype, cache = DTYPES[config.compute.autocast], not config.compute.cuda_graphs

    def within(batch: Any) -> Any:
        with torch.autocast(device.type, dtype=dtype, cache_enabled=cache):
            return forward(batch)

    return within


def _no_forward(batch: Any) -> Any:
    raise ModelFault("this model only generates; it has no forward")
