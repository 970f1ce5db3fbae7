"""What a model is read from and how it computes: the blocks of a model beside its batching."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fleet_controller.spec.localpath import short_enough
from fleet_controller.spec.part import Part, Text

Format = Literal["class", "torchscript", "export", "safetensors"]
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError(
            f'"{value[:70]}" is no sha256; it has 64 hexadecimal digits: sha256sum FILE prints it'
        )
    return value.lower()


def _file(value: str) -> str:
    if not value or re.search(r"[\x00-\x1f\x7f]", value) or ".." in value.split("/"):
        raise ValueError(
            f'"{value[:70]}" is not a file of the model; write its path within source, or an absolute one that '
            "the hosts have"
        )
    return short_enough(value)


def _from(value: str) -> str:
    if re.match(r"https?://[^/\s]+/", value) and not re.search(r"[\x00-\x20\x7f]", value):
        if "@" in value.split("/")[2]:
            raise ValueError(
                "holds a password; let the server take this machine without one, or fetch the file first"
            )
        return value
    if not value or re.search(r"[\x00-\x1f\x7f]", value) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        raise ValueError(f'"{value[:70]}" is neither a file on this machine nor an http(s):// address')
    return short_enough(value)


def _mount(value: str) -> str:
    if not re.fullmatch(r"/[^\x00-\x1f\x7f]+", value) or ".." in value.split("/"):
        raise ValueError(
            f'"{value[:70]}" is not a file on the hosts; write its full path, as /mnt/weights/x.safetensors'
        )
    return short_enough(value)


class WeightsSpec(Part):
    """A file of weights, pinned: with another content the model is not loaded."""

    file: Annotated[str, AfterValidator(_file)] = Field(
        description="Path within source, or an absolute one that the hosts have."
    )
    sha256: Annotated[Text, AfterValidator(_sha256)] = Field(description="What sha256sum prints for it.")
    origin: Annotated[str, AfterValidator(_from)] | None = Field(
        default=None,
        alias="from",
        description="Where it comes from: a file on this machine or an http(s):// address; none: it lies in source.",
    )
    mount: Annotated[str, AfterValidator(_mount)] | None = Field(
        default=None, description="Where the hosts have it, on a shared disk say: it is used there, not sent."
    )
    trust_pickle: bool = Field(
        default=False,
        description="It may be a pickle, which runs whatever code it holds when it is loaded; without: refused.",
    )

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> WeightsSpec:
        given = [name for name, value in (("from", self.origin), ("mount", self.mount)) if value is not None]
        if len(given) == 2:
            raise ValueError("comes from one place; leave out from or mount")
        if given and self.file.startswith("/"):
            raise ValueError(f"has an absolute file, which the hosts have already; leave out {given[0]}")
        return self

    @property
    def is_pinned_here(self) -> bool:
        """Whether the hosts get it from us, or have it mounted: an absolute file is the model's own affair."""
        return not self.file.startswith("/")


class TensorSpec(Part):
    """An input or output of a program, in the words of the Open Inference Protocol."""

    name: str = Field(min_length=1, description="Its name.")
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
    ] = Field(description="As FP32 or INT64.")
    shape: tuple[Annotated[int, Field(ge=-1)], ...] = Field(
        min_length=1, description="Its sizes; the first is the batch; -1: any."
    )


class Compute(Part):
    """How the model computes. Without a key: as its own code does."""

    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="Of weights and inputs."
    )
    autocast: Literal["float16", "bfloat16"] | None = Field(
        default=None, description="Matrix products and the like are computed so, sums in float32."
    )
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = Field(
        default=None, description="torch.compile in this mode; the first start takes longer."
    )
    channels_last: bool = Field(default=False, description="Images with the channels last in memory.")
    cuda_graphs: bool = Field(
        default=False, description="The launches of a batch are recorded once and replayed; nothing on a CPU."
    )
    pinned_memory: bool = Field(
        default=False, description="Inputs reach a GPU through page-locked memory; nothing on a CPU."
    )
