"""Format `class`: the user's class with `load` and `forward`, or what makes it a generator instead."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from fleet_agent.model.faults import ModelFault, place, said
from fleet_agent.model.generator import can_generate
from fleet_agent.model.source import class_of
from fleet_wire.agent import ModelConfig


def instance_of(config: ModelConfig, device: torch.device) -> Any:
    """Constructed and loaded. Raises ModelFault."""
    name = f"model {config.name}"
    cls = class_of(config)
    wanted = ("load",) if can_generate(cls) else ("load", "forward")
    missing = [method for method in wanted if not callable(getattr(cls, method, None))]
    if missing:
        raise ModelFault(
            f"{name}: {config.entrypoint} has no method {' and no '.join(missing)}; see docs/models.md"
        )
    try:
        instance = cls()
        instance.load(device, dict(config.options))
    except pickle.UnpicklingError as error:
        raise ModelFault(
            f"{name}: load() reads a pickle{place(error, Path(config.path))}, which can run any code; convert the "
            "file to safetensors, or list it under weights with its sha256 and trust_pickle: true"
        ) from error
    except Exception as error:  # The user's code may raise anything while it loads.
        raise ModelFault(f"{name}: load() failed: {said(error)}{place(error, Path(config.path))}") from error
    return instance
