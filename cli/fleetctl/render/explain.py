"""An explanation for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from fleetctl.render.terminal import grid
from fleetctl.render.text import age, line


def parts(told: Mapping[str, Any], now: float) -> list[Table | Text | str]:
    """The sentence first, then who wanted what, then what stood in the way."""
    pool = line(told["pool"])
    if told["at"] is None:
        return [f"pool {pool}: nothing has been decided yet"]
    page: list[Table | Text | str] = [
        f"pool {pool}: {told['desired']} wanted, {told['ready']} ready",
        f"decided {age(now - told['at'])} ago: {line(told['reason'])}",
        f"bounds: {told['bounds'].get('low')}..{told['bounds'].get('high')}",
    ]
    if told["paused"]:
        page.append(f"autoscaling is paused; go on with: fleetctl autoscale resume {pool}")
    if told["cooldown_remaining_s"]:
        page.append(f"cooling down for another {age(told['cooldown_remaining_s'])}")
    page += [f"held back by: {line(obstacle)}" for obstacle in told["blocked_by"]]
    if told["recommendations"]:
        rows = (
            (
                Text(line(r.get("policy")), style="bold" if r.get("policy") == told["winner"] else ""),
                r.get("desired"),
                r.get("reason"),
            )
            for r in told["recommendations"]
        )
        page += ["", grid(("POLICY", "WANTS", "WHY"), rows)]
    if told["winner"]:
        page.append(f"decided by: {line(told['winner'])}")
    return page
