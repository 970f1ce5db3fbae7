"""Format `export`: a program that `torch.export.save` wrote (.pt2). Its inputs are in it, their shapes too."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from fleet_agent.model.faults import ModelFault
from fleet_agent.model.program import Program
from fleet_agent.values.tensors import TensorMetadata
from fleet_wire.agent import ModelConfig

_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


def instance_of(config: ModelConfig, file: Path, device: torch.device) -> Program:
    """Raises ModelFault, also for a program that can't take batches of one to max_batch_size."""
    where = f"model {config.name}: {file.name}"
    # What it logs when it fails is its own stack; the fault below says what matters.
    quiet = logging.getLogger("torch.export")
    before, quiet.disabled = quiet.disabled, True
    try:
        with file.open("rb") as data:
            program = torch.export.load(data)
    except Exception as error:  # A file that isn't what it should be makes the reader raise nearly anything.
        raise ModelFault(
            f"{where} is no exported program, or one that torch {torch.__version__} can't read; write it with "
            "torch.export.save of the same torch (why: in the agent's log)"
        ) from error
    finally:
        quiet.disabled = before
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    inputs = _inputs(program, where)
    for tensor, size in inputs:
        _check_batch(program, size, tensor["name"], config.max_batch_size, where)
    outputs = [tensor.model_dump() for tensor in config.outputs]
    metadata = [tensor for tensor, _ in inputs]
    names = [tensor["name"] for tensor in metadata]
    module = program.module()
    return Program(module, names, metadata, outputs, _caller(program, module))  # type: ignore[arg-type]


def _inputs(program: ExportedProgram, where: str) -> list[tuple[TensorMetadata, Any]]:
    """Each input and the size of its first dimension (a number, or a symbol). Raises ModelFault."""
    users = set(program.graph_signature.user_inputs)
    found: list[tuple[TensorMetadata, Any]] = []
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in users:
            continue
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or not value.dim() or value.dtype not in _DATATYPES:
            raise ModelFault(
                f"{where}: its input {node.name} is no tensor with a batch dimension; wrap the program in a class "
                "(format: class)"
            )
        shape = [size if type(size) is int else -1 for size in value.shape]
        found.append(
            ({"name": node.name, "datatype": _DATATYPES[value.dtype], "shape": shape}, value.shape[0])
        )
    if not found:
        raise ModelFault(f"{where}: it takes no inputs")
    return found


def _check_batch(program: ExportedProgram, size: Any, name: str, largest: int, where: str) -> None:
    if type(size) is int:
        raise ModelFault(
            f"{where}: it was exported for batches of exactly {size} (input {name}); export it with "
            f'dynamic_shapes={{"{name}": {{0: torch.export.Dim("batch")}}}} and an example of at least 2'
        )
    bounds = program.range_constraints.get(size.node.expr)
    if bounds is None:
        return
    if bounds.lower > 1 or bounds.upper < largest:
        raise ModelFault(
            f"{where}: it was exported for batches of {max(1, bounds.lower)} to {bounds.upper} (input {name}), which "
            f"doesn't cover 1 to max_batch_size {largest}; set batching.max_batch_size, or export it with a wider Dim"
        )


def _caller(program: ExportedProgram, module: torch.nn.Module) -> Any:
    """Calls with the inputs in order, by keyword where they were exported so."""
    spec = program.call_spec.in_spec
    keywords = [] if spec is None else list(spec.child(1).context or [])
    if not keywords:
        return module

    def call(*tensors: torch.Tensor) -> Any:
        positional = len(tensors) - len(keywords)
        return module(*tensors[:positional], **dict(zip(keywords, tensors[positional:], strict=True)))

    return call
