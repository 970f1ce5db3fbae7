"""A simulation for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from fleetctl.render.terminal import grid
from fleetctl.render.text import age, line, number

MOST_TURNS = 20


def parts(told: Mapping[str, Any]) -> list[Table | Text | str]:
    """What was simulated, what was assumed, the figures, and the first changes."""
    trace, assumed, curve = told["trace"], told["assumed"], told["assumed"]["service_curve"]
    page: list[Table | Text | str] = [
        f"pool {line(told['pool'])} as {line(told['policy_file'])} scales it, on {line(trace['file'])}: "
        f"{trace['requests']:,} requests in {age(trace['seconds'])}",
        f"assumed: at most {_count(assumed['hosts'], 'host')}, ready {age(assumed['startup_s'])} after their start; "
        f"n requests take {span(curve['base_s'])} + n x {span(curve['per_request_s'])}"
        f"{' on average' if curve['jitter'] != 'none' else ''}, in batches of at most {curve['max_batch']} "
        f"({number(curve['capacity_rps'])} requests/s a host)",
        "",
        grid(("FIGURE", "VALUE"), _figures(told)),
        "",
        grid(
            ("AFTER", "SERVERS", "WHY"),
            ((age(t["at"]), t["servers"], t["reason"]) for t in told["turns"][:MOST_TURNS]),
        ),
    ]
    more = len(told["turns"]) - MOST_TURNS
    if more > 0:
        page.append(f"and {more} more changes; -o json has them all")
    return page


def _figures(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    static, hours = told["static_server_hours"], told["server_hours"]
    share = f" ({hours / static:.1%} of it)" if static else ""
    target, within = told["target_ms"], told["within_target"]
    return [
        *((f"latency {name}", f"{number(ms)} ms") for name, ms in told["latency_ms"].items()),
        (
            f"within {target:g} ms" if target is not None else "within target",
            f"{math.floor(within * 10_000) / 100:.2f}%"
            if within is not None
            else "- (no target; --target-ms sets one)",
        ),
        ("answered", f"{told['completed']:,} of {told['requests']:,}"),
        ("server-hours", f"{hours:.2f}"),
        (
            "static peak",
            f"{static:.2f} server-hours with {_count(told['peak_servers'], 'server')} throughout{share}",
        ),
        ("scale events", f"{told['scale_ups']} up, {told['scale_downs']} down"),
        ("direction changes", f"{told['direction_changes']}"),
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def span(seconds: float) -> str:
    """A time of a batch: in milliseconds under a second."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
