"""Sizes of memory as people write them: 8GiB, 512MiB, 40GB; a bare number counts bytes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_UNITS = {"B": 1} | {
    f"{prefix}{suffix}": step ** (power + 1)
    for power, prefix in enumerate("KMGTP")
    for suffix, step in (("iB", 1024), ("B", 1000))
}
_WRITTEN = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", re.ASCII)
_LARGEST = 1024**5


def size(value: object) -> int:
    """`value` in bytes. Raises ValueError with an example for anything that is not a size."""
    number: int | None = None
    hint = 'write it like "8GiB" or "512MiB"'
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        found = _WRITTEN.fullmatch(value.strip())
        if found and found[2] in _UNITS:
            number = round(float(found[1]) * _UNITS[found[2]])
        elif found and not found[2] and "." not in found[1]:
            number = int(found[1])
        elif found and found[2] and found[2][0].upper() in "KMGTP":
            binary = found[2][1:].lower() != "b"
            hint = f'did you mean "{found[1]}{found[2][0].upper()}{"iB" if binary else "B"}"?'
    if number is None:
        kind = (
            "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else f'"{value}"'
        )
        raise ValueError(f"{kind[:42]} is not a size of memory; {hint}")
    if number < 0 or number > _LARGEST:
        raise ValueError(f"a size of memory must be between 0 and 1024TiB; {hint}")
    return number


Size = Annotated[
    int,
    BeforeValidator(size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "description": "bytes"},
                {
                    "type": "string",
                    "pattern": r"^[0-9]+(\.[0-9]+)? ?([KMGTP]i?)?B$",
                    "examples": ["8GiB", "512MiB", "40GB"],
                },
            ]
        }
    ),
]
