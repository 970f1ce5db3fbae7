"""Part: what every block of fleet.yaml has in common. Decides how strict a block is."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)


def inner(annotation: Any) -> Any:
    """The one type behind Annotated and Optional: `tuple[X, ...] | None` gives `tuple[X, ...]`."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return inner(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(annotation) if a is not type(None)]
        return inner(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _collection(annotation: Any) -> bool:
    plain = inner(annotation)
    if isinstance(plain, type) and not typing.get_origin(plain):
        return issubclass(plain, BaseModel)
    return typing.get_origin(plain) in (tuple, list, dict)


class Part(BaseModel):
    """A block of fleet.yaml: unknown keys are errors, values do not change.

    A block or list that is written with nothing in it (all its lines commented out) counts as not written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_blocks_are_not_written(cls, data: Any) -> Any:
        if not isinstance(data, dict) or None not in data.values():
            return data
        empty = {
            key
            for name, field in cls.model_fields.items()
            for key in (field.alias or name,)
            if data.get(key, ...) is None and not field.is_required() and _collection(field.annotation)
        }
        return {key: value for key, value in data.items() if key not in empty}

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1: `min_servers: true` is a mistake, not one server.
        if isinstance(value, bool) and inner(cls.model_fields[info.field_name or ""].annotation) in (
            int,
            float,
        ):
            raise ValueError(f"{str(value).lower()} is not a number")
        return value


def _text(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f'{str(value).lower()} is a truth value here; for text write "{str(value).lower()}"')
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise ValueError(
            f'{value} is a number here and may lose digits; for text put it in quotes, as "{value}"'
        )
    return value


Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": ["string", "integer"]})]
"""Text that YAML may have read as an integer (`version: 1`)."""
