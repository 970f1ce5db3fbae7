"""The state store as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fleetctl.render.terminal import grid
from fleetctl.render.text import age


def table(told: Mapping[str, Any], now: float) -> Table:
    old = told["revision"] != told["newest"]
    first = told["first_event_at"]
    lines = [
        ("path", told["path"]),
        ("size", f"{_size(told['bytes'])}, and {_size(told['wal_bytes'])} not yet merged"),
        ("schema", f"{told['revision']}" + (f", becomes {told['newest']} at the next start" if old else "")),
        ("rows", ", ".join(f"{count} {name}" for name, count in told["rows"].items() if count) or "none"),
        ("events", "none" if first is None else f"since {age(now - first)}"),
        ("integrity", "whole" if not told["problems"] else f"DAMAGED: {told['problems'][0]}"),
    ]
    return grid(("", "STATE STORE"), lines)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
