"""The models that a fleet serves."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from fleet_controller.spec.address import Name
from fleet_controller.spec.host import LocalPath
from fleet_controller.spec.part import Part
from fleet_controller.spec.size import Size

Scalar = str | int | float | bool | None
_ENTRYPOINT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def _entrypoint(value: str) -> str:
    if _ENTRYPOINT.fullmatch(value) and ".py:" not in value:
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


class ModelSpec(Part):
    """A model: a folder with Python code (and what it needs), and the class in it that answers requests."""

    name: Name = Field(description="Name under which clients ask for it.")
    version: Name = Field(default="1", description="Version, reported to clients.")
    source: LocalPath = Field(description="Folder with the code, from this file's folder.")
    entrypoint: Annotated[str, AfterValidator(_entrypoint)] = Field(
        description='Module and class in the folder, as "model:MiniLM".'
    )
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

    @property
    def module(self) -> str:
        return self.entrypoint.partition(":")[0]

    @property
    def class_name(self) -> str:
        return self.entrypoint.partition(":")[2]
