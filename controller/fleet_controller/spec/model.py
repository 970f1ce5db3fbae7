"""The models that a fleet serves."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from fleet_controller.spec.address import Name
from fleet_controller.spec.command import CommandSpec
from fleet_controller.spec.localpath import LocalPath
from fleet_controller.spec.part import Part
from fleet_controller.spec.size import Size
from fleet_controller.spec.weights import Compute, Format, TensorSpec, WeightsSpec

_OF_TORCH = ("format", "entrypoint", "weights", "inputs", "outputs", "compute", "options")
Scalar = str | int | float | bool | None
_ENTRYPOINT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# A module is a file of that name.
_MOST_ENTRYPOINT = 200


def _entrypoint(value: str) -> str:
    if not value:
        raise ValueError('is empty; write "MODULE:CLASS", as "model:MiniLM"')
    if _ENTRYPOINT.fullmatch(value) and ".py:" not in value and len(value) <= _MOST_ENTRYPOINT:
        return value
    hint = 'write "MODULE:CLASS", as "model:MiniLM"'
    swapped = re.fullmatch(r"([\w./-]+?)(?:\.py)?[:.](\w+)", value)
    if swapped and _ENTRYPOINT.fullmatch(meant := f"{swapped[1].strip('./').replace('/', '.')}:{swapped[2]}"):
        hint = f'did you mean "{meant}"?'
    raise ValueError(f'"{value[:70]}" is not an entrypoint; {hint}')


def _requirement(value: str) -> str:
    if not re.match(r"[A-Za-z0-9]", value) or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(
            f'"{value[:70]}" is not a requirement of pip; write it like "tokenizers>=0.19" '
            "(options go into install.pip_args, files into the model's own requirements.txt)"
        )
    return value


def _scalar(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError("an option is one text, number, true, false or null, not a list or a mapping")


class Batching(Part):
    """How requests are put together into batches."""

    max_batch_size: int = Field(default=32, ge=1, description="Most requests in one batch.")
    max_queue_delay_ms: float = Field(
        default=0.0,
        ge=0,
        description="How long a free device waits for a fuller batch; 0: it never waits.",
    )
    max_queue_size: int = Field(
        default=1024, ge=1, description="Most requests waiting; more are refused with 429."
    )
    length_buckets: list[int] | None = Field(
        default=None,
        description="Bounds of lengths: only requests between the same two share a batch; left out: the model's own.",
    )

    @field_validator("length_buckets")
    @classmethod
    def _ascends(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and (not value or value[0] < 1 or value != sorted(set(value))):
            raise ValueError("must be whole numbers over 0 in ascending order, such as [32, 128]")
        return value


class ModelSpec(Part):
    """A model: a folder, and what in it answers requests: a class, or a program without one; or an outside engine."""

    name: Name = Field(description="Name under which clients ask for it.")
    version: Name = Field(default="1", description="Version, reported to clients.")
    source: LocalPath | None = Field(
        default=None, description="Folder with the code, from this file's folder; an engine may have none."
    )
    runtime: Literal["torch", "command"] = Field(
        default="torch",
        description='"command": an outside engine, an HTTP inference server that command starts.',
    )
    command: CommandSpec | None = Field(default=None, description="How an outside engine is run.")
    format: Format = Field(
        default="class",
        description='What it is: "class" with load and forward; "safetensors": a torch.nn.Module and its weights; '
        '"torchscript" or "export": a program, the one file of weights.',
    )
    entrypoint: Annotated[str, AfterValidator(_entrypoint)] = Field(
        default="",
        description='Module and class in the folder, as "model:MiniLM"; programs have none.',
    )
    weights: tuple[WeightsSpec, ...] = Field(default=(), description="Its files, each pinned by its sha256.")
    inputs: tuple[TensorSpec, ...] = Field(
        default=(), description="Its inputs, where the class or the TorchScript program does not tell them."
    )
    outputs: tuple[TensorSpec, ...] = Field(
        default=(), description="Its outputs, where the class or the program does not tell them."
    )
    compute: Compute = Field(default=Compute(), description="How it computes.")
    batching: Batching = Field(default=Batching(), description="How requests are put together.")
    device_memory_bytes: Size | None = Field(
        default=None,
        alias="device_memory",
        description="Device memory that it needs, as 2GiB: hosts without that much room do not get it.",
    )
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = Field(
        default=(), description="What pip installs for it, besides requirements.txt in its folder."
    )
    options: dict[
        str,
        Annotated[
            Scalar,
            BeforeValidator(_scalar),
            WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
        ],
    ] = Field(default={}, repr=False, description="Handed to the class's load(): KEY: VALUE.")

    @model_validator(mode="after")
    def _fits_its_runtime(self) -> ModelSpec:
        if self.runtime == "torch":
            if self.command is not None:
                raise ValueError("has a command; write runtime: command too, or leave it out")
            if self.source is None:
                raise ValueError(
                    '"source" is missing; add it (folder with the code, from this file\'s folder)'
                )
            return self
        if self.command is None:
            raise ValueError(
                "runtime: command has no command; add it, as command: {argv: [vllm, serve, ...]}"
            )
        given = [name for name in _OF_TORCH if name in self.model_fields_set]
        if given:
            raise ValueError(f"an outside engine computes as its command says; leave out {', '.join(given)}")
        batching = sorted(self.batching.model_fields_set - {"max_queue_size"})
        if batching:
            raise ValueError(
                f"an outside engine makes its own batches; leave out batching.{batching[0]} (command.max_in_flight "
                "says how many requests it gets)"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_format(self) -> ModelSpec:
        if self.runtime == "command":
            return self
        program = self.format in ("torchscript", "export")
        if not program and not self.entrypoint:
            raise ValueError('has no entrypoint; write "MODULE:CLASS", as "model:MiniLM"')
        if program and (self.entrypoint or self.options):
            key = "entrypoint" if self.entrypoint else "options"
            raise ValueError(f"format {self.format} is a program without a class; leave out {key}")
        if program and len(self.weights) != 1:
            raise ValueError(
                f"format {self.format} takes one file under weights, the program; it has {len(self.weights)}"
            )
        if self.format == "safetensors" and not self.weights:
            raise ValueError("format safetensors takes its weights from files; list them under weights")
        if self.inputs and self.format == "export":
            raise ValueError("an exported program tells its inputs itself; leave out inputs")
        if self.compute.compile and self.format == "torchscript":
            raise ValueError(
                "torch.compile can not see into a TorchScript program; leave out compute.compile"
            )
        if self.compute.dtype and self.format == "export":
            raise ValueError("an exported program keeps its dtype; leave out compute.dtype, or use autocast")
        return self

    @property
    def module(self) -> str:
        return self.entrypoint.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.entrypoint.partition(":")[2]
