"""Durations as people write them: 30s, 5m, 1h30m, 250ms, 2d; a bare number counts seconds."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(value: object) -> float:
    """`value` in seconds. Raises ValueError with an example for anything that is not a duration."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        if number < 0 or not math.isfinite(number):
            raise ValueError("a duration cannot be negative or infinite")
        return number
    if isinstance(value, str):
        text = value.strip().replace(" ", "")
        parts = _PART.findall(text)
        if parts and "".join(n + unit for n, unit in parts) == text:
            return sum(float(n) * _UNITS[unit] for n, unit in parts)
    raise ValueError(f'{value!r} is not a duration; write it like "30s", "5m" or "1h30m"')


Duration = Annotated[float, BeforeValidator(seconds)]
