"""Shares, 0..1, and the percent that people write where one belongs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field


def share(value: object) -> object:
    """Percent written where a share belongs is the likeliest slip of all: name the share that was meant."""
    number = value
    if isinstance(value, str):
        percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
        number = float(percent[1]) if percent else value
    if (
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and (number > 1 or number is not value)
    ):
        meant = f"; did you mean {number / 100:g}?" if 0 < number <= 100 else ""
        raise ValueError(f"{value} is not a share between 0 and 1{meant}")
    return value


Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(share)]
"""A share that may be nothing and may be all."""
