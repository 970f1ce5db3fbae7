"""Format `safetensors`: the user's `torch.nn.Module` class, its weights from files of their own.

The options are what the class is constructed with. A pickled state dict is read as well where the configuration trusts
that very file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fleet_agent.model.faults import ModelFault, place, said
from fleet_agent.model.pins import pickled
from fleet_agent.model.source import class_of
from fleet_wire.agent import ModelConfig

_NAMED = 4


def instance_of(config: ModelConfig, files: list[Path], device: torch.device) -> torch.nn.Module:
    """With every weight taken from the files, none missing and none left. Raises ModelFault."""
    name = f"model {config.name}"
    cls = class_of(config)
    if not issubclass(cls, torch.nn.Module):
        raise ModelFault(
            f"{name}: {config.entrypoint} is no torch.nn.Module, which format safetensors needs; derive it from "
            "torch.nn.Module, or load the weights in its load() (format: class)"
        )
    try:
        network: torch.nn.Module = cls(**config.options)
    except Exception as error:  # The user's code may raise anything.
        raise ModelFault(
            f"{name}: {config.entrypoint} with the options {config.options} failed: {said(error)}"
            f"{place(error, Path(config.path))}"
        ) from error
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        weights |= _read(file, name, device)
    _check(network, weights, name)
    network.load_state_dict(weights, strict=True, assign=True)
    return network.to(device).eval().requires_grad_(False)


def _read(file: Path, name: str, device: torch.device) -> dict[str, torch.Tensor]:
    if not pickled(file):
        try:
            return load_file(file, device=str(device))
        except SafetensorError as error:
            raise ModelFault(f"{name}: {file.name} is no safetensors file: {error}") from error
    try:
        # Its pin trusts it, else it would have been refused before.
        read: Any = torch.load(file, map_location=device, weights_only=False)
    except Exception as error:  # A pickle may run anything, and so raise anything.
        raise ModelFault(f"{name}: {file.name} can't be unpickled: {said(error)}") from error
    if not isinstance(read, dict) or not all(isinstance(value, torch.Tensor) for value in read.values()):
        raise ModelFault(f"{name}: {file.name} holds {type(read).__name__}, not a state dict of tensors")
    return read


def _check(network: torch.nn.Module, weights: dict[str, torch.Tensor], name: str) -> None:
    own = network.state_dict()
    wrong = [
        f"{key} is {list(weights[key].shape)} in the file and {list(own[key].shape)} in the class"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape
    ]
    for what, keys in (
        ("the files lack", sorted(own.keys() - weights.keys())),
        ("the class has no", sorted(weights.keys() - own.keys())),
        ("shapes differ:", sorted(wrong)),
    ):
        if keys:
            more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            raise ModelFault(
                f"{name}: the weights don't fit the class: {what} {', '.join(keys[:_NAMED])}{more}; are the options "
                "(or the file) those that it was trained with?"
            )
