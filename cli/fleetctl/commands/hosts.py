"""`fleetctl hosts`."""

from __future__ import annotations

import time
from typing import Any

import typer

from fleet_controller.spec import FleetSpec
from fleetctl import picture
from fleetctl.fleet import Fleet
from fleetctl.render.hosts import table
from fleetctl.render.output import Form, Output, document
from fleetctl.render.terminal import show

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def hosts(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """Every machine of fleet.yaml, with its zone, price and labels, and the state it was last seen in."""
    fleet = Fleet.of(ctx)
    with fleet.history() as journal:
        known = {host["name"]: host for host in picture.take(fleet, journal, time.time())["hosts"]}
    inventory = [_entry(fleet.spec, name, known.get(name)) for name in (h.name for h in fleet.spec.hosts)]
    if output is Form.TABLE:
        show(table(inventory))
    else:
        typer.echo(
            document({"schema": "fleetctl/hosts/v1", "fleet": fleet.spec.fleet, "hosts": inventory}, output)
        )


def _entry(spec: FleetSpec, name: str, seen: dict[str, Any] | None) -> dict[str, Any]:
    """What fleet.yaml says of a host, and on top of it what was last seen there."""
    host = spec.host(name)
    pool = spec.pool_of(name)
    return {
        "name": name,
        "pool": pool.name if pool is not None else None,
        "pools": [each.name for each in spec.pools_of(name)],
        "address": host.address,
        "state": "off",
        "since_s": None,
        "models": [],
        "in_flight": 0,
        "queued": 0,
        "device_memory": {"used_bytes": None, "total_bytes": host.device_memory_bytes},
        "p95_ms": None,
        "error": None,
        "cordoned": False,
        **(seen or {}),
        "zone": host.zone,
        "labels": dict(host.labels),
        "price_per_hour": host.price_per_hour,
        "watts": host.watts,
        "speed": host.speed,
        "spot": host.spot,
        "protected": host.protect,
    }
