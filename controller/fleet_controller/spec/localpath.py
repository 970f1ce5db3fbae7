"""A path on this machine, as it may be written in fleet.yaml: with ~, or from the file's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

MOST_PART_BYTES = 255
MOST_BYTES = 3000


def home(value: Path) -> Path:
    """`value` with ~ expanded. Raises ValueError for the home of an unknown user."""
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError(
            f'"{str(value)[:70]}" names the home of a user that this machine does not have'
        ) from None


def short_enough(value: str) -> str:
    """A path that Linux can have (NAME_MAX 255, PATH_MAX 4096 with the folder before it): asking for others fails."""
    data = value.encode("utf-8", "replace")
    if len(data) > MOST_BYTES or any(len(part) > MOST_PART_BYTES for part in data.split(b"/")):
        raise ValueError(
            f'"{value[:40]}..." is longer than a path can be ({MOST_PART_BYTES} bytes for a name, {MOST_BYTES} in all)'
        )
    return value


def _written(value: object) -> object:
    if value == "":
        # It would be the folder of the file.
        raise ValueError("is empty; write a path, or leave the key out")
    return short_enough(value) if isinstance(value, str) else value


LocalPath = Annotated[
    Path, BeforeValidator(_written), AfterValidator(home), WithJsonSchema({"type": "string"})
]
