"""A plan for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from fleetctl.render.terminal import grid
from fleetctl.render.text import number

STYLES = {"start": "green", "stop": "yellow", "replace": "cyan"}


def parts(plan: Mapping[str, Any]) -> list[Table | Text | str]:
    """Each pool as it is and should be, what becomes of each host, and what that costs."""
    pools = grid(
        ("POOL", "READY", "STARTING", "DESIRED", "WHY"),
        ((p["name"], p["ready"], p["starting"], p["desired"], p["reason"]) for p in plan["pools"]),
    )
    found: list[Table | Text | str] = [pools, ""]
    changing = [c for c in plan["changes"] if c["action"] != "none"]
    if changing:
        found += [_changes(changing), "", *_totals(plan["totals"])]
    else:
        found.append("nothing to do")
    if plan["unsure"]:
        found += ["", "not known now, looked at first:"]
        found += [f"  {one['host']}: {one['reason']}" for one in plan["unsure"]]
    if not plan["complete"]:
        found.append("more would follow than is shown here")
    return found


def _changes(changing: Sequence[Mapping[str, Any]]) -> Table:
    powered = any(c["power"] for c in changing)
    titles = ["CHANGE", "HOST", "POOL", "RELEASE", "UNIT", *(["POWER"] if powered else []), "WHY"]
    rows = []
    for change in changing:
        power = [_power(change["power"])] if powered else []
        rows.append(
            [
                Text(change["action"], style=STYLES[change["action"]]),
                change["host"],
                _arrow(change["pool"]),
                _arrow(change["release"], 8),
                change["unit"],
                *power,
                "; ".join([change["reason"], *change["release"]["differs"]]),
            ]
        )
    return grid(titles, rows)


def _power(power: Mapping[str, Any] | None) -> str:
    if power is None:
        return "-"
    return _arrow({"from": power["from"] or "?", "to": power["to"] or "?"})


def _arrow(pair: Mapping[str, Any], length: int = 64) -> str:
    before, after = (str(pair[key] or "-")[:length] for key in ("from", "to"))
    return before if before == after else f"{before} -> {after}"


def _totals(totals: Mapping[str, Any]) -> list[str]:
    found = [f"hosts     {_change(totals['hosts'])}"]
    if totals["cost_per_hour"]["to"] is not None or totals["cost_per_hour"]["from"] is not None:
        found.append(f"cost/h    {_change(totals['cost_per_hour'])}{_without(totals['unpriced'], 'a price')}")
    if totals["watts"]["to"] is not None or totals["watts"]["from"] is not None:
        found.append(f"watts     {_change(totals['watts'])}{_without(totals['unmetered'], 'watts')}")
    return found


def _change(pair: Mapping[str, Any]) -> str:
    before, after = (pair[key] for key in ("from", "to"))
    if before is None or after is None or before == after:
        return (
            f"{_figure(before)} -> {_figure(after)}" if before != after else f"{_figure(before)}, as before"
        )
    sign = "+" if after > before else "-"
    return f"{_figure(before)} -> {_figure(after)} ({sign}{_figure(round(abs(after - before), 6))})"


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}" if value != int(value) else number(value)


def _without(names: Sequence[str], what: str) -> str:
    if not names:
        return ""
    return f" (without {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: fleet.yaml gives no {what})"
