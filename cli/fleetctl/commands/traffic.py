"""`fleetctl traffic`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_controller.spec import PoolSpec
from fleetctl.commands.options import PoolName, duration
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet
from fleetctl.render.output import Form, Output, document
from fleetctl.render.text import age, clean

if TYPE_CHECKING:
    from fleet_controller.journal import Minute

SCHEMA = "fleetctl/traffic/v1"
MINUTE_S = 60

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def traffic() -> None:
    """The requests that came in, as the controller counts them: by the minute, for 90 days."""


@app.command()
def export(
    ctx: typer.Context,
    pool: PoolName = None,
    since: Annotated[
        float,
        typer.Option("--since", parser=duration, metavar="DURATION", help='How far back: "12h", "7d".'),
    ] = 7 * 86400.0,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            parser=duration,
            metavar="DURATION",
            help="Of each row; whole minutes that divide a day.",
        ),
    ] = float(MINUTE_S),
    output: Output = Form.TABLE,
) -> None:
    """Print a pool's traffic as the CSV that `fleetctl simulate --trace` reads.

    The interval that is not over yet is left out. Needs no running fleet.
    """
    fleet = Fleet.of(ctx)
    chosen = _pool(fleet, pool)
    step = _step(interval)
    now = time.time()
    with fleet.history() as journal:
        known = journal.traffic(chosen.name, (now - since) // step * step) if journal is not None else []
    rows = [row for row in _rows(known, step) if row[0] + step <= now]
    if len(rows) < 2:  # an interval is the spacing of two rows
        raise Failed(
            f"less than two intervals of {age(step)} of pool {chosen.name} are recorded in the last {age(since)}; "
            "the controller counts requests while the fleet is up"
        )
    missing = sum(requests is None for _, requests in rows)
    if missing:
        typer.echo(
            clean(
                f"note: nothing is known of {missing} of {len(rows)} intervals; the CSV has 0 requests there"
            ),
            err=True,
        )
    if output is not Form.TABLE:
        typer.echo(document(_told(fleet, chosen, step, rows), output))
        return
    typer.echo("timestamp_s,requests")
    typer.echo("\n".join(f"{at},{requests or 0}" for at, requests in rows))


def _pool(fleet: Fleet, name: str | None) -> PoolSpec:
    if name is not None:
        return fleet.spec.pool(name)
    if len(fleet.spec.pools) > 1:
        names = ", ".join(pool.name for pool in fleet.spec.pools)
        raise Failed(
            f"there are {len(fleet.spec.pools)} pools, and a trace is of one; name it: {names}", USAGE
        )
    return fleet.spec.pools[0]


def _step(interval: float) -> int:
    step = int(interval)
    if step != interval or step < MINUTE_S or step % MINUTE_S or 86400 % step:
        raise Failed(
            f"--interval {interval:g}s: requests are counted by the minute; give whole minutes that divide a day, "
            "like 60s, 5m or 1h",
            USAGE,
        )
    return step


def _rows(known: Sequence[Minute], step: int) -> list[tuple[int, int | None]]:
    """(start, requests) of every interval from the first known one to the last; None: nobody counted then."""
    counted: dict[int, int] = {}
    for minute in known:
        at = minute.at - minute.at % step
        counted[at] = counted.get(at, 0) + minute.requests
    if not counted:
        return []
    return [(at, counted.get(at)) for at in range(min(counted), max(counted) + step, step)]


def _told(fleet: Fleet, pool: PoolSpec, step: int, rows: Sequence[tuple[int, int | None]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        "pool": pool.name,
        "interval_s": step,
        "intervals": [{"at": at, "requests": requests} for at, requests in rows],
    }
