"""Format `torchscript`: a program that `torch.jit.save` wrote. It tells no shapes: `inputs` in the configuration do."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from fleet_agent.model.faults import ModelFault
from fleet_agent.model.program import Program
from fleet_agent.values.tensors import TensorMetadata
from fleet_wire.agent import ModelConfig


def instance_of(config: ModelConfig, file: Path, device: torch.device) -> Program:
    """Raises ModelFault."""
    try:
        with warnings.catch_warnings():
            # torch advises exported programs for what is new; who has a TorchScript program knows.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ModelFault(
            f"model {config.name}: {file.name} is no TorchScript program, or torch {torch.__version__} can't read it: "
            f"{str(error).splitlines()[0].partition('. ')[0]}"
        ) from error
    network.eval()
    inputs = [_metadata(tensor.model_dump()) for tensor in config.inputs]
    outputs = [_metadata(tensor.model_dump()) for tensor in config.outputs]
    return Program(network, [tensor["name"] for tensor in inputs], inputs, outputs)


def _metadata(tensor: dict[str, object]) -> TensorMetadata:
    return tensor  # type: ignore[return-value]  # the same keys; LoadedModel checks the values
