"""A plan for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from fleetctl.render.terminal import grid


def parts(plan: Mapping[str, Any]) -> list[Table | Text | str]:
    """Each pool as it is and should be, then the steps."""
    pools = grid(
        ("POOL", "READY", "STARTING", "DESIRED", "WHY"),
        ((p["name"], p["ready"], p["starting"], p["desired"], p["reason"]) for p in plan["pools"]),
    )
    if not plan["steps"]:
        return [pools, "", "nothing to do"]
    steps = grid(
        ("STEP", "HOST", "POOL", "WHY"),
        ((s["kind"], s["host"], s["pool"], s["reason"]) for s in plan["steps"]),
    )
    return [pools, "", steps]
