"""What a host said of itself, read as what it is: text of a stranger. PURE.

A fact is missing, late, of another type or full of control characters, and none of that is a failure of ours: it is
unknown, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet_controller.hosts.failure import printable

MOST_TEXT = 400


def text(value: object, limit: int = MOST_TEXT) -> str:
    """One line that may be shown; "" for what is no text."""
    return " ".join(printable(value, limit).split()) if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass(frozen=True)
class Fact:
    """`value` is empty where the fact is not known; `missing` then says why, and is "" otherwise."""

    value: Mapping[str, Any]
    missing: str = ""

    def text(self, name: str) -> str:
        return text(self.value.get(name))

    def number(self, name: str) -> float | None:
        return number(self.value.get(name))

    def yes(self, name: str) -> bool:
        return self.value.get(name) is True

    def no(self, name: str) -> bool:
        """It was said that it is not so; different from not knowing."""
        return self.value.get(name) is False


# Without one of these a fact says nothing, whatever else it has: it must not read as "there is none".
NEEDED = {
    "service": frozenset({"systemd"}),
    "releases": frozenset({"ill"}),
    "port": frozenset({"port"}),
    "driver": frozenset({"devices"}),
    "kernel_log": frozenset({"lines", "denied"}),
    "memory": frozenset({"shm_total"}),
}


class Facts:
    """The answer of the errand `examine`."""

    def __init__(self, said: object) -> None:
        self._said = mapping(said)

    def of(self, name: str) -> Fact:
        told = mapping(self._said.get(name))
        value = told.get("value")
        wanted = NEEDED.get(name)
        if isinstance(value, dict) and value and (wanted is None or not wanted.isdisjoint(value)):
            return Fact(value)
        return Fact({}, text(told.get("trouble")) or "the host did not say")
