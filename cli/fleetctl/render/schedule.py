"""What the schedules will do, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from fleetctl.render.terminal import grid
from fleetctl.render.text import line

FROM_FILE = "min_servers and max_servers of the pool"


def parts(told: Mapping[str, Any], days: int) -> list[Table | Text | str]:
    """One pool: what holds now, a row for each change of it or of the clocks and for each day that is left out; and
    the schedules of which nothing is to come.
    """
    pool, schedule = line(told["pool"]), told["schedule"]
    if not told["schedules"]:
        return [f"pool {pool}: {_servers(told)}, no schedules"]
    head = f"pool {pool}: {_servers(told)} now, by {line(schedule or FROM_FILE)}"
    rows = [
        *((c["at"], _change(c)) for c in told["changes"]),
        *((c["at"], _turn(c)) for c in told["clock_changes"]),
        *((n["at"], (_time(n), n["timezone"], "", "", line(n["note"]))) for n in told["notes"]),
    ]
    over = [f"{line(name)} is over; it may be removed" for name in told["over"]]
    if not rows:
        return [f"{head}; no change within {days} {'day' if days == 1 else 'days'}", *over]
    titles = ("TIME", "TIME ZONE", "SERVERS", "BEFORE", "BY")
    return [head, grid(titles, (row for _, row in sorted(rows, key=lambda row: row[0]))), *over]


def _change(change: Mapping[str, Any]) -> tuple[str, ...]:
    by = change["schedule"] or FROM_FILE
    return (_time(change), change["timezone"], _servers(change), _servers(change["from"]), by)


def _turn(change: Mapping[str, Any]) -> tuple[str, ...]:
    by = change["offset_after_s"] - change["offset_before_s"]
    way = "forward" if by > 0 else "back"
    return (_time(change), change["timezone"], "", "", f"the clocks go {way} by {abs(by) // 60} min")


def _time(change: Mapping[str, Any]) -> str:
    moment = datetime.fromisoformat(change["local"]).astimezone(ZoneInfo(change["timezone"]))
    return moment.strftime("%a %Y-%m-%d %H:%M %z %Z")


def _servers(bounds: Mapping[str, Any]) -> str:
    low, high = bounds["min_servers"], bounds["max_servers"]
    return f"exactly {low}" if low == high else f"{low} to {high}"
