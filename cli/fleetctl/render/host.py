"""One host as a page for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from fleet_controller.lifecycle import Quarantine
from fleetctl.render.hosts import memory
from fleetctl.render.terminal import grid, state_cell
from fleetctl.render.text import age, clock, line, number


def page(told: Mapping[str, Any]) -> list[Table | Text | str]:
    """`told` is the JSON form."""
    parts: list[Table | Text | str] = [_table(told)]
    if told["open_actions"]:
        parts += ["", "Under way"]
        parts.append(
            grid(
                ("ACTION", "SINCE", "WHY"),
                ((one["kind"], age(one["age_s"]), one["reason"]) for one in told["open_actions"]),
            )
        )
    if told["events"]:
        parts += ["", "What happened last"]
        rows = (
            (clock(one["at"]), state_cell(one["kind"]), line(one["error"]) or line(one["reason"]))
            for one in told["events"]
        )
        parts.append(grid(("AT", "", "WHY"), rows))
    return parts


def _table(told: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(told):
        table.add_row(name, value if isinstance(value, Text) else Text(line(value)))
    return table


def _rows(told: Mapping[str, Any]) -> Iterator[tuple[str, Text | str]]:
    yield "host", Text(line(told["name"]), style="bold")
    yield "address", _address(told)
    for pool in told["pools"]:
        yield "pool", f"{pool['name']}: {', '.join(pool['models'])}"
    if told["zone"]:
        yield "zone", told["zone"]
    if told["labels"]:
        yield "labels", ", ".join(f"{key}={value}" for key, value in told["labels"].items())
    yield "costs", _costs(told)
    words = [word for word in ("spot", "protected") if told[word]]
    if words:
        yield "kind", ", ".join(words)
    yield from _state(told["state"])
    yield from _learned(told["learned"])
    yield from _power(told)
    yield from _agent(told["agent"])
    yield "installed in", told["install"]["directory"]


def _address(told: Mapping[str, Any]) -> str:
    ssh = told["ssh"]
    if ssh is None:
        return "this machine"
    who = f"{ssh['user']}@" if ssh["user"] else ""
    jump = f" through {ssh['jump']}" if ssh["jump"] else ""
    return f"{who}{told['address']} port {ssh['port']}{jump}"


def _costs(told: Mapping[str, Any]) -> str:
    price, watts = told["price_per_hour"], told["watts"]
    words = [f"{number(price)} an hour"] if price is not None else []
    words += [f"{number(watts)} W"] if watts is not None else []
    return ", ".join(words) or "-"


def _state(state: Mapping[str, Any] | None) -> Iterator[tuple[str, Text | str]]:
    if state is None:
        yield "state", "the fleet was never started with it"
        return
    since = f" for {age(state['since_s'])}" if state["since_s"] is not None else ""
    why = f": {line(state['reason'])}" if state["reason"] else ""
    yield "state", Text.assemble(state_cell(state["state"]), f"{since}{why}")
    if state["quarantined"]:
        retry = f"; next try in {age(state['retry_in_s'])}" if state["retry_in_s"] else ""
        held = state["quarantine"] == Quarantine.UNPROVEN
        why = "it is not proven to be free" if held else f"after {state['failures']} failures in a row"
        words = f"{why}{retry}; `fleetctl up` tries it at once"
        yield "quarantine", Text(words, style="bold red")
    if state["error"]:
        yield "error", Text(line(state["error"]), style="red")
    if state["cordoned"]:
        yield "cordoned", "an operator took it out; fleetctl uncordon lets it in again"
    if state["release"]:
        yield "release", state["release"]


def _learned(learned: Mapping[str, Any]) -> Iterator[tuple[str, Text | str]]:
    if learned["startup_s"] is not None:
        boot = f"{age(learned['boot_s'])} to boot, " if learned["boot_s"] else ""
        yield "last start", f"{age(learned['startup_s'])}: {boot}{age(learned['load_s'])} to install and load"


def _power(told: Mapping[str, Any]) -> Iterator[tuple[str, Text | str]]:
    power, now = told["power"], told["power_now"]
    if power["driver"] == "none":
        yield "power", "always on (no power control)"
        return
    via = f" through {power['via']}" if power["via"] else ""
    said = "" if now is None else f": {now['state']}" + (f" ({now['reason']})" if now["reason"] else "")
    yield "power", f"{power['driver']}{via}{said}"


def _agent(agent: Mapping[str, Any] | None) -> Iterator[tuple[str, Text | str]]:
    if agent is None:
        return
    if agent["state"] is None:
        yield "agent", Text(line(agent["error"]), style="red")
        return
    yield "agent", f"{agent['state']} at {agent['url']}, started {clock(agent['started_at'])}"
    for model in agent["models"]:
        ready = "ready" if model["ready"] else f"not ready {line(model['error'])}".strip()
        yield "model", f"{model['name']} version {model['version']}: {ready}"
    done = f"{agent['completed']} done, {agent['errors']} failed"
    yield "requests", f"{agent['in_flight']} in flight, {agent['queued']} queued, {done}"
    if agent["capacity_rps"] is not None:
        yield "capacity", f"{number(agent['capacity_rps'])} requests a second"
    yield "device", f"{agent['device']}, memory {memory(agent)}"
    for device in agent["devices"]:
        reason = f": {device['reason']}" if device["reason"] else ""
        heat = f", {number(device['temperature_c'])} degrees" if device["temperature_c"] is not None else ""
        slow = f", slowed down by {', '.join(device['throttled_by'])}" if device["throttled_by"] else ""
        yield "gpu", f"{device['name']} is {device['health']}{reason}{heat}{slow}"
