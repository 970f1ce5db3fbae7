"""A path on this machine, as it may be written in fleet.yaml: with ~, or from the file's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema


def home(value: Path) -> Path:
    """`value` with ~ expanded. Raises ValueError for the home of an unknown user."""
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError(
            f'"{str(value)[:70]}" names the home of a user that this machine does not have'
        ) from None


def _written(value: object) -> object:
    if value == "":
        # It would be the folder of the file.
        raise ValueError("is empty; write a path, or leave the key out")
    return value


LocalPath = Annotated[
    Path, BeforeValidator(_written), AfterValidator(home), WithJsonSchema({"type": "string"})
]
