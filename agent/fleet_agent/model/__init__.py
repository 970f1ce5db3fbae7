"""The user's model: from what the configuration names to something that runs batches. In the worker only.

The interface and the formats are documented in docs/models.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fleet_agent.model import format_class, format_export, format_safetensors, format_torchscript
from fleet_agent.model.faults import InputFault, ModelFault
from fleet_agent.model.loaded import LoadedModel, Result
from fleet_agent.model.pins import guarded, verified
from fleet_agent.model.source import Siblings
from fleet_wire.agent import ModelConfig

__all__ = ["InputFault", "LoadedModel", "ModelFault", "Result", "load"]


def load(config: ModelConfig, device: torch.device) -> LoadedModel:
    """Verify the weights, import, construct, load. Raises ModelFault: one clear sentence, its cause the traceback."""
    folder = Path(config.path)
    if not folder.is_dir():
        raise ModelFault(f"model {config.name}: there is no folder {folder}")
    _check_keys(config)
    with Siblings(folder), guarded(config):
        return LoadedModel(config, _instance(config, verified(config), device), device)


def _instance(config: ModelConfig, files: list[Path], device: torch.device) -> Any:
    if config.format == "torchscript":
        return format_torchscript.instance_of(config, files[0], device)
    if config.format == "export":
        return format_export.instance_of(config, files[0], device)
    instance = (
        format_safetensors.instance_of(config, files, device)
        if config.format == "safetensors"
        else format_class.instance_of(config, device)
    )
    for key, tensors in (("inputs", config.inputs), ("outputs", config.outputs)):
        if tensors and getattr(instance, key, None):
            raise ModelFault(
                f"model {config.name}: {config.entrypoint} declares its {key} itself: leave {key} out"
            )
        if tensors:
            setattr(instance, key, [tensor.model_dump() for tensor in tensors])
    return instance


def _check_keys(config: ModelConfig) -> None:
    """What the format needs is there, and nothing that it would ignore."""
    name = f"model {config.name}: format {config.format}"
    program = config.format in ("torchscript", "export")
    if program and (config.entrypoint or config.options):
        key = "entrypoint" if config.entrypoint else "options"
        raise ModelFault(f"{name} is a program without a class: leave {key} out")
    if program and len(config.weights) != 1:
        raise ModelFault(
            f"{name} takes one file under weights, the program; {len(config.weights)} are listed"
        )
    if config.format == "safetensors" and not config.weights:
        raise ModelFault(
            f"{name} takes its weights from files: list them under weights, each with its sha256"
        )
    if config.inputs and config.format == "export":
        raise ModelFault(f"{name}: the program tells its inputs itself: leave inputs out")
