"""A path on this machine, as it may be written in fleet.yaml: with ~, or from the file's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema


def home(value: Path) -> Path:
    """`value` with ~ expanded. Raises ValueError for the home of an unknown user."""
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError(
            f'"{str(value)[:70]}" names the home of a user that this machine does not have'
        ) from None


LocalPath = Annotated[Path, AfterValidator(home), WithJsonSchema({"type": "string"})]
