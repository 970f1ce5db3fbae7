"""`fleetctl autoscale`."""

from __future__ import annotations

from typing import Literal

import typer

from fleetctl.commands.options import PoolName
from fleetctl.fleet import Fleet, ask
from fleetctl.render.text import clean

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def autoscale() -> None:
    """Automatic scaling, on and off. Hosts that fail are replaced either way."""


@app.command()
def pause(ctx: typer.Context, pool: PoolName = None) -> None:
    """Keep the number of servers as it is, whatever the load; `fleetctl scale` still works."""
    _set(ctx, "pause", pool)


@app.command()
def resume(ctx: typer.Context, pool: PoolName = None) -> None:
    """Scale by the policies again."""
    _set(ctx, "resume", pool)


def _set(ctx: typer.Context, kind: Literal["pause", "resume"], pool: str | None) -> None:
    fleet = Fleet.of(ctx)
    name = fleet.spec.pool(pool).name if pool else None
    fleet.need_controller()
    with fleet.journal() as journal:
        typer.echo(clean(ask(fleet, journal, kind, pool=name)), err=True)
