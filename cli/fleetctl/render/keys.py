"""API keys as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from fleetctl.render.terminal import grid
from fleetctl.render.text import age, number


def table(keys: Iterable[Mapping[str, Any]], now: float) -> Table:
    return grid(
        ("NAME", "AGE", "RATE/S", "BURST", "SHARE", "POOLS"),
        (
            (
                key["name"],
                age(now - key["created_at"]),
                number(key["rate_per_s"]),
                number(key["burst"]),
                number(key["share"]),
                ",".join(key["pools"]) or "all",
            )
            for key in keys
        ),
    )
