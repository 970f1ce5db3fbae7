"""`fleetctl hosts`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from fleet_controller.spec import FleetSpec
from fleetctl import picture, portrait
from fleetctl.fleet import Fleet
from fleetctl.render.host import page
from fleetctl.render.hosts import table
from fleetctl.render.output import Form, Output, document
from fleetctl.render.terminal import show

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback(invoke_without_command=True)
def hosts(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """Every machine of fleet.yaml, with its zone, price and labels, and the state it was last seen in."""
    if ctx.invoked_subcommand is not None:
        return
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


@app.command()
def describe(
    ctx: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host of fleet.yaml.")],
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="How many of its last events.")] = 10,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Ask its agent and its power control how it is now.")
    ] = True,
    output: Output = Form.TABLE,
) -> None:
    """Everything known about one host: what fleet.yaml says, what happened to it, and how it is now."""
    fleet = Fleet.of(ctx)
    named = fleet.spec.host(host)
    with fleet.history() as journal:
        told = portrait.draw(fleet, named, journal, time.time(), number, ask)
    if output is Form.TABLE:
        show(*page(told))
    else:
        typer.echo(document(told, output))


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
