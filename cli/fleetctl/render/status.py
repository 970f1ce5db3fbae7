"""The status picture as a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleetctl.render.hosts import ORDER, memory, models
from fleetctl.render.terminal import grid, state_cell
from fleetctl.render.text import age, line, number

NOTHING_UP = "nothing is up; start with fleetctl up"
MEASURED = ("p50", "p95", "p99")


def never_started(picture: Mapping[str, Any]) -> bool:
    return not picture["pools"] and not picture["hosts"]


def essence(picture: Mapping[str, Any]) -> object:
    """What has to differ for a picture to be news: no ages, no rates."""
    controller = picture["controller"]
    return (
        controller["running"],
        controller["paused"],
        [(p["name"], p.get("desired"), p["ready"], p.get("paused")) for p in picture["pools"]],
        [(h["name"], h["state"], h.get("error"), h.get("cordoned")) for h in picture["hosts"]],
    )


def parts(picture: Mapping[str, Any], most_hosts: int | None = None) -> list[Table | Text | str]:
    """Head, pools and hosts, with empty lines between; at most `most_hosts` host rows."""
    if never_started(picture):
        return [NOTHING_UP]
    hosts = sorted(picture["hosts"], key=_urgency) if most_hosts is not None else picture["hosts"]
    shown = hosts[:most_hosts]
    page: list[Table | Text | str] = [_head(picture), "", _pools(picture), "", _hosts(shown)]
    if len(shown) < len(hosts):
        page.append(f"and {len(hosts) - len(shown)} more; fleetctl hosts shows all")
    return page


def page(picture: Mapping[str, Any], height: int) -> RenderableType:
    """The picture cut to a screen of `height` rows: the hosts that need a look come first."""
    room = max(3, height - 10 - len(picture["pools"]))
    return Group(*parts(picture, room))


def _urgency(host: Mapping[str, Any]) -> tuple[int, str]:
    return (ORDER.index(host["state"]) if host["state"] in ORDER else len(ORDER), host["name"])


def _head(picture: Mapping[str, Any]) -> Table:
    controller = picture["controller"]
    table = Table.grid(padding=(0, 2))
    table.add_row("fleet", Text(line(picture["fleet"])))
    table.add_row("endpoint", Text(line(picture["endpoint"]) or "-"))
    table.add_row("controller", _controller(controller, picture["goal"]))
    if controller.get("config"):
        table.add_row("fleet.yaml", Text(line(controller["config"]), style="bold red"))
    for pool, asked in (controller.get("rolled_back") or {}).items():
        told = f"{pool} was rolled back; fleet.yaml asks for release {asked} (`fleetctl rollback {pool} --clear`)"
        table.add_row("rollback", Text(line(told), style="bold yellow"))
    if text := _operation(picture.get("operation")):
        table.add_row("operation", text)
    balancer = picture.get("balancer")
    if controller["running"] and balancer and not balancer.get("running", True):
        table.add_row("balancer", Text(f"NOT RUNNING: {line(balancer.get('error'))}", style="bold red"))
    return table


def _operation(told: Mapping[str, Any] | None) -> Text | None:
    """An `up` or `down` that goes on, or that left something undone; None: nothing to say."""
    if told is None or (told["outcome"] == "done" and not told["left"]):
        return None
    bounds = [f"only {', '.join(told['hosts'][:3])}"] if told["hosts"] else []
    bounds += [f"{told['parallel']} at once"] if told["parallel"] else []
    words = [f"{told['kind']} by {line(told['by'])}" if told["by"] else told["kind"], *bounds]
    for what, hosts in (("failed", told["failed"]), ("left", told["left"])):
        if hosts:
            words.append(f"{what}: {', '.join(sorted(hosts)[:5])}{', ...' if len(hosts) > 5 else ''}")
    halted = told["outcome"] == "halted"
    return Text("; ".join([*words, *(["halted"] if halted else [])]), style="bold red" if halted else "")


def _controller(controller: Mapping[str, Any], goal: str) -> Text:
    tick = controller["last_tick_age_s"]
    if controller["running"]:
        paused = ", autoscaling paused" if controller["paused"] else ""
        seen = f"last tick {age(tick)} ago" if tick is not None else "no tick yet"
        return Text(f"running, {seen}{paused}", style="yellow" if paused else "")
    if goal == "up":
        return Text(
            f"NOT RUNNING - nothing scales or heals; start it with: fleetctl up. The picture below is {age(tick)} old",
            style="bold red",
        )
    return Text(f"not running, the fleet is down; the picture below is {age(tick)} old")


def _pools(picture: Mapping[str, Any]) -> Table:
    rows = []
    for pool in picture["pools"]:
        latency = pool.get("latency_ms") or {}
        ready, desired = pool["ready"], pool.get("desired")
        decision = pool.get("last_decision") or {}
        reason = "paused; " * bool(pool.get("paused")) + line(decision.get("reason"))
        rows.append(
            (
                pool["name"],
                Text(
                    str(ready), style="green" if desired is not None and ready >= desired else "bold yellow"
                ),
                desired if desired is not None else "-",
                f"{pool.get('min_servers')}..{pool.get('max_servers')}",
                *(number(latency.get(name)) for name in MEASURED),
                number(pool.get("rps")),
                number(pool.get("in_flight")),
                number(pool.get("queued")),
                reason,
            )
        )
    titles = (
        "POOL",
        "READY",
        "DESIRED",
        "BOUNDS",
        "P50 MS",
        "P95 MS",
        "P99 MS",
        "RPS",
        "IN FLIGHT",
        "QUEUED",
        "WHY",
    )
    return grid(titles, rows)


def _hosts(hosts: list[dict[str, Any]]) -> Table:
    return grid(
        (
            "HOST",
            "POOL",
            "ADDRESS",
            "STATE",
            "SINCE",
            "MODELS",
            "IN FLIGHT",
            "QUEUED",
            "MEMORY",
            "P95 MS",
            "WHY",
        ),
        (
            (
                host["name"],
                host.get("pool") or "-",
                host.get("address") or "-",
                state_cell(host["state"]),
                age(host.get("since_s")),
                models(host),
                number(host.get("in_flight")),
                number(host.get("queued")),
                memory(host),
                number(host.get("p95_ms")),
                why(host),
            )
            for host in hosts
        ),
    )


def why(host: Mapping[str, Any]) -> str:
    """The host's error, else the reason for its state; and whether an operator took it out."""
    words = [line(host.get("error")) or line(host.get("reason"))]
    if host.get("cordoned"):
        words.insert(0, "cordoned")
    if host.get("retry_in_s"):
        words.append(f"(next try in {age(host['retry_in_s'])})")
    return " ".join(word for word in words if word)
