"""`fleetctl plan`, and what `up --dry-run` shows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_controller import spec
from fleet_controller.statefolder import SQLITE, StateFolder
from fleetctl.bounds import limit_of
from fleetctl.commands.options import Limit
from fleetctl.failure import Failed
from fleetctl.fleet import Fleet
from fleetctl.render.output import Form, Output, document
from fleetctl.render.plan import parts
from fleetctl.render.terminal import show
from fleetctl.render.text import clean

if TYPE_CHECKING:
    from fleet_controller.foresight.changes import Totals
    from fleet_controller.preview import HostPlan, Plan

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def plan(
    ctx: typer.Context,
    output: Output = Form.TABLE,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the plan there too, for `fleetctl up FILE`."),
    ] = None,
    limit: Limit = None,
) -> None:
    """What `fleetctl up` would change now, host by host, and why; with cost and watts. Changes nothing.

    With --out the plan is kept: `fleetctl up FILE` does exactly what it says, and refuses once it no longer fits.
    """
    fleet = Fleet.of(ctx)
    value = made(fleet, limit_of(fleet.spec, limit))
    if out is not None:
        _write(out, document(value, Form.JSON) + "\n")
        typer.echo(clean(f"written to {out}; apply it with: fleetctl up {out}"), err=True)
    _print(value, output)


def tell(fleet: Fleet, form: Form, limit: list[str] | None = None) -> None:
    """Print what `fleetctl up` would do now."""
    _print(made(fleet, limit), form)


def _print(value: dict[str, Any], form: Form) -> None:
    if form is Form.TABLE:
        show(*parts(value))
    else:
        typer.echo(document(value, form))


def made(fleet: Fleet, limit: list[str] | None) -> dict[str, Any]:
    """The plan as a document. Raises SpecError, HostFailure."""
    # Not at the top: it brings SQLAlchemy and paramiko.
    from fleet_controller.fleetfile import checksum
    from fleet_controller.foresight.planfile import SCHEMA, sealed
    from fleet_controller.preview import preview

    content = fleet.spec.source.read_bytes()
    read = replace(fleet, spec=spec.load(fleet.spec.source, content))  # what was hashed is what is planned
    with readable(read) as known, known.journal() as journal:
        planned = preview(known.spec, journal, known.folder, checksum(content), limit)
    return sealed({"schema": SCHEMA, "fleet": fleet.spec.fleet, **_told(planned, limit, fleet.spec)})


def _told(planned: Plan, limit: list[str] | None, fleet: spec.FleetSpec) -> dict[str, Any]:
    return {
        "limit": limit,
        "pools": [
            {
                "name": pool.name,
                "desired": pool.desired,
                "ready": pool.ready,
                "starting": pool.starting,
                "reason": pool.reason,
            }
            for pool in planned.pools
        ],
        "steps": [
            {"kind": step.kind, "host": step.host, "pool": step.pool, "reason": step.reason}
            for step in planned.steps
        ],
        "changes": [_change(host, fleet) for host in planned.hosts],
        "totals": {
            "hosts": _pair(planned.before.hosts, planned.after.hosts),
            "cost_per_hour": _pair(planned.before.cost_per_hour, planned.after.cost_per_hour),
            "watts": _pair(planned.before.watts, planned.after.watts),
            "price_per_kwh": fleet.controller.price_per_kwh,
            **_unknown(planned.before, planned.after),
        },
        "unsure": [{"host": name, "reason": reason} for name, reason in sorted(planned.lost.items())],
        "complete": planned.complete,
        "basis": planned.basis.model_dump(mode="json"),
    }


def _change(host: HostPlan, fleet: spec.FleetSpec) -> dict[str, Any]:
    change = host.change
    one = fleet.host(change.host)
    return {
        "host": change.host,
        "action": change.action,
        "reason": change.reason,
        "state": change.state.value,
        "pool": _pair(*change.pool),
        "release": _pair(*change.release) | {"differs": list(host.differs)},
        "models": _pair(*([{"name": n, "version": v} for n, v in models] for models in host.models)),
        "unit": one.agent.supervisor,
        "power": None if one.power.driver == "none" else {"driver": one.power.driver} | _pair(*host.power),
        "price_per_hour": one.price_per_hour,
        "watts": one.watts,
    }


def _pair(before: Any, after: Any) -> dict[str, Any]:
    return {"from": before, "to": after}


def _unknown(before: Totals, after: Totals) -> dict[str, Any]:
    return {
        "unpriced": sorted({*before.unpriced, *after.unpriced}),
        "unmetered": sorted({*before.unmetered, *after.unmetered}),
    }


def _write(file: Path, text: str) -> None:
    """All of it or nothing. Raises Failed."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        fresh.write_text(text)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise Failed(f"{file}: the plan can't be written there: {error.strerror or error}") from error


@contextmanager
def readable(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet itself; where it was never started, the fleet with an empty state of its own that goes away again."""
    if fleet.started:
        yield fleet
        return
    with tempfile.TemporaryDirectory(prefix="fleetctl-plan-") as place:
        url = f"{SQLITE}{Path(place) / 'state.db'}"
        yield replace(fleet, folder=StateFolder(Path(place), url))
