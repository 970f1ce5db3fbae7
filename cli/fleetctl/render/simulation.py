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
            _within(within) if within is not None else "- (no target; --target-ms sets one)",
        ),
        ("answered", f"{told['completed']:,} of {told['requests']:,}"),
        ("server-hours", f"{hours:.2f}"),
        (
            "static peak",
            f"{static:.2f} server-hours with {_count(told['peak_servers'], 'server')} throughout{share}",
        ),
        *_oracle(told),
        *_cost(told),
        ("scale events", f"{told['scale_ups']} up, {told['scale_downs']} down"),
        ("direction changes", f"{told['direction_changes']}, {told['quick_turns']} of them within 5 minutes"),
    ]


def _oracle(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = told["oracle"]
    if known is None:
        return []
    times = (
        f": {told['server_hours'] / known['server_hours']:.2f} times that" if known["server_hours"] else ""
    )
    return [("oracle", f"{known['server_hours']:.2f} server-hours hold {known['share']:.2%}{times}")]


def _cost(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    if told["cost"] is None:
        return []
    oracle = told["oracle"]
    beside = [f"static peak {told['static_cost']:.2f}"]
    if oracle is not None and oracle["cost"] is not None:
        beside.append(f"oracle {oracle['cost']:.2f}")
    return [("cost", f"{told['cost']:.2f} ({', '.join(beside)})")]


def compared(told: Mapping[str, Any]) -> list[Table | Text | str]:
    """One line a scaling block."""
    trace, runs = told["trace"], told["runs"]
    target = runs[0]["target_ms"]
    same = all(run["target_ms"] == target for run in runs)
    rows = [
        (
            run["policy_file"],
            _within(run["within_target"]),
            *(() if same else (number(run["target_ms"]),)),
            *(number(run["latency_ms"][p]) for p in ("p50", "p95", "p99")),
            f"{run['server_hours']:.2f}",
            f"{run['static_server_hours']:.2f}",
            "-" if run["cost"] is None else f"{run['cost']:.2f}",
            run["peak_servers"],
            f"{run['scale_ups']}/{run['scale_downs']}",
            run["quick_turns"],
        )
        for run in runs
    ]
    within = f"WITHIN {target:g} ms" if same and target is not None else "WITHIN"
    titles = (
        "SCALING OF", within, *(() if same else ("TARGET",)), "P50", "P95", "P99", "SERVER-HOURS", "STATIC", "COST",
        "PEAK", "UP/DOWN", "TURNS < 5m",
    )  # fmt: skip
    return [
        f"pool {line(told['pool'])} on {line(trace['file'])}: {trace['requests']:,} requests in "
        f"{age(trace['seconds'])}, the same arrivals for each",
        "",
        grid(titles, rows),
    ]


def tuned_parts(told: Mapping[str, Any]) -> list[Table | Text | str]:
    """What the search found, on both parts of the traffic, and the diff."""
    trace, before, best = told["trace"], told["before"], told["best"]
    rows = [_tried("as it is", before["searched"], before["judged"])]
    if best is not None:
        rows.append(_tried(_changes(best["changes"]), best["searched"], best["judged"]))
    else:
        rows += [_tried(_changes(one["changes"]), None, one["judged"]) for one in told["refused"]]
        if told["closest"]["changes"] and not told["refused"]:
            rows.append(_tried(_changes(told["closest"]["changes"]), told["closest"]["searched"], None))
    page: list[Table | Text | str] = [
        f"pool {line(told['pool'])} as {line(told['policy_file'])} scales it, on {line(trace['file'])}: "
        f"{trace['requests']:,} requests in {age(trace['seconds'])}; {told['runs']} settings tried",
        "",
        grid(("SETTING", "SEARCHED: WITHIN", "SERVER-HOURS", "JUDGED: WITHIN", "SERVER-HOURS"), rows),
        "",
    ]
    if best is None:
        page.append(
            f"no setting that was tried is cheaper and holds {told['share']:.2%}; nothing to change"
            if told["holds"]
            else f"no setting that was tried holds {told['share']:.2%} on both parts; more hosts (max_servers), a "
            "faster start or a longer target would"
        )
        return page
    page.append(told["diff"].rstrip("\n"))
    page.append("")
    page.append(
        f"written to {line(told['policy_file'])}"
        if told["written"]
        else "not written; --write changes the file"
    )
    return page


def _tried(
    name: str, searched: Mapping[str, Any] | None, judged: Mapping[str, Any] | None
) -> tuple[str, str, str, str, str]:
    cells = []
    for run in (searched, judged):
        cells += ["", ""] if run is None else [_within(run["within_target"]), f"{run['server_hours']:.2f}"]
    return name, cells[0], cells[1], cells[2], cells[3]


def _changes(changes: Mapping[str, Any]) -> str:
    words = {True: "true", False: "false"}
    return ", ".join(
        f"{knob} {words[new] if isinstance(new, bool) else f'{new:g}'}" for knob, new in changes.items()
    )


def _within(share: float | None) -> str:
    return "-" if share is None else f"{math.floor(share * 10_000) / 100:.2f}%"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def span(seconds: float) -> str:
    """A time of a batch: in milliseconds under a second."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
