"""Durations as people write them: 30s, 5m, 1h30m, 250ms, 2d; a bare number counts seconds."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"\d+(?:\.\d+)?"
# Each unit at most once, the big ones first: "1h1h" and "30m1h" are slips of the pen.
_WRITTEN = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in _UNITS), re.ASCII)
_LONG_WORDS = re.compile(
    rf"({_NUMBER})\s*(ms|millis|d|h|m|s)(?:illiseconds?|ays?|ours?|rs?|in(?:ute)?s?|ec(?:ond)?s?)?",
    re.I | re.ASCII,
)
LONGEST = 3650 * 86400.0


def seconds(value: object) -> float:
    """`value` in seconds. Raises ValueError with an example for anything that is not a duration.

    Refuses more than 3650 days: operating systems refuse such time-outs, and nobody means them.
    """
    number: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0 or value != value:
            raise ValueError("a duration cannot be negative")
        number = float(value) if value <= LONGEST else math.inf
    elif isinstance(value, str) and len(value) <= 100:
        text = value.strip().replace(" ", "")
        found = _WRITTEN.fullmatch(text)
        if text and found:
            number = sum(
                float(n) * unit for n, unit in zip(found.groups(), _UNITS.values(), strict=True) if n
            )
    if number is None:
        raise ValueError(f"{_shown(value)} is not a duration; {_hint(value)}")
    if number > LONGEST:
        raise ValueError("a duration cannot be longer than 3650d")
    return number


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 40 else f'"{value[:40]}..."'
    return (
        "a list"
        if isinstance(value, list | tuple)
        else "a mapping"
        if isinstance(value, dict)
        else repr(value)
    )


def _hint(value: object) -> str:
    if isinstance(value, str) and len(value) <= 100:
        long = _LONG_WORDS.fullmatch(value.strip())
        if long:
            unit = long[2].lower()
            return f'did you mean "{long[1]}{"ms" if unit == "millis" else unit}"?'
        if re.fullmatch(_NUMBER, value.strip()):
            return f'did you mean "{value.strip()}s"?'
    return 'write it like "30s", "5m" or "1h30m"'


def _above_zero(value: float) -> float:
    if value <= 0:
        raise ValueError('must be longer than 0; write it like "5s"')
    return value


_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number", "minimum": 0, "description": "seconds"},
            {
                "type": "string",
                "pattern": r"^(?=.)" + "".join(rf"([0-9]+(\.[0-9]+)?{unit})?" for unit in _UNITS) + "$",
                "examples": ["30s", "5m", "1h30m"],
            },
        ]
    }
)

Duration = Annotated[float, BeforeValidator(seconds), _SCHEMA]
"""Seconds, written as 30s, 5m, 1h30m, 250ms, 2d or a bare number."""
PositiveDuration = Annotated[float, BeforeValidator(seconds), AfterValidator(_above_zero), _SCHEMA]
