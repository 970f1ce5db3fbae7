"""`fleetctl plan`, and what `up --dry-run` shows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from fleet_controller.statefolder import SQLITE, StateFolder
from fleetctl.fleet import Fleet
from fleetctl.render.output import Form, Output, document
from fleetctl.render.plan import parts
from fleetctl.render.terminal import show

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def plan(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """Which hosts the controller would start and stop now if the fleet were up, and why. Changes nothing."""
    tell(Fleet.of(ctx), output)


def tell(fleet: Fleet, form: Form) -> None:
    """Print what `fleetctl up` would begin now."""
    # Not at the top: it brings SQLAlchemy and paramiko.
    from fleet_controller.preview import preview

    with _readable(fleet) as readable, readable.journal() as journal:
        planned = preview(readable.spec, journal, readable.folder)
    value: dict[str, Any] = {
        "schema": "fleetctl/plan/v1",
        "fleet": fleet.spec.fleet,
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
    }
    if form is Form.TABLE:
        show(*parts(value))
    else:
        typer.echo(document(value, form))


@contextmanager
def _readable(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet itself; where it was never started, the fleet with an empty state of its own that goes away again."""
    if fleet.started:
        yield fleet
        return
    with tempfile.TemporaryDirectory(prefix="fleetctl-plan-") as place:
        url = f"{SQLITE}{Path(place) / 'state.db'}"
        yield replace(fleet, folder=StateFolder(Path(place), url))
