"""The inventory as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from fleetctl.render.terminal import grid, state_cell
from fleetctl.render.text import age, line, number, size

# What needs a look comes first.
ORDER = (
    "failed",
    "unreachable",
    "booting",
    "reachable",
    "installing",
    "starting",
    "loading",
    "draining",
    "stopping",
)


def table(hosts: Iterable[Mapping[str, Any]]) -> Table:
    return grid(
        ("HOST", "POOL", "ADDRESS", "ZONE", "STATE", "SINCE", "PRICE/H", "MEMORY", "LABELS", "NOTES"),
        (
            (
                host["name"],
                host["pool"] or "-",
                host["address"],
                host["zone"] or "-",
                state_cell(host["state"]),
                age(host["since_s"]),
                number(host["price_per_hour"]),
                memory(host),
                ",".join(f"{key}={value}" for key, value in host["labels"].items()) or "-",
                notes(host),
            )
            for host in hosts
        ),
    )


def notes(host: Mapping[str, Any]) -> str:
    words = [word for word in ("cordoned", "protected") if host.get(word)]
    return "; ".join([*words, *filter(None, [line(host.get("error"))])])


def models(host: Mapping[str, Any]) -> str:
    """Its models by name; those not ready yet are marked."""
    return (
        ",".join(m["name"] + ("" if m.get("ready") else "(not ready)") for m in host.get("models") or [])
        or "-"
    )


def memory(host: Mapping[str, Any]) -> str:
    """Used of all device memory."""
    known = host.get("device_memory") or {}
    if known.get("total_bytes") is None and known.get("used_bytes") is None:
        return "-"
    return f"{size(known.get('used_bytes'))} of {size(known.get('total_bytes'))}"
