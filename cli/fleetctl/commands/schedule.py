"""`fleetctl schedule`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from fleet_controller.explain import timetable
from fleet_controller.policies.schedule import bounds
from fleet_controller.spec import PoolSpec
from fleetctl.commands.options import PoolName
from fleetctl.fleet import Fleet
from fleetctl.render import schedule as render
from fleetctl.render.output import Form, Output, document
from fleetctl.render.terminal import show

SCHEMA = "fleetctl/schedule-preview/v1"
DAY_S = 86400.0

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def schedule() -> None:
    """The schedules of fleet.yaml, which change a pool's bounds at certain times."""


@app.command()
def preview(
    ctx: typer.Context,
    pool: PoolName = None,
    days: Annotated[int, typer.Option("--days", min=1, max=366, metavar="N", help="How far ahead.")] = 7,
    output: Output = Form.TABLE,
) -> None:
    """When the schedules will change min_servers, max_servers or the exact number, by each schedule's own clock;
    which days are left out, and what a change of the clocks does to a time.

    Asks the policy itself, needs no running fleet, changes nothing.
    """
    fleet = Fleet.of(ctx)
    pools = [fleet.spec.pool(pool)] if pool else fleet.spec.pools
    now = float(int(time.time()))
    told = [_preview(one, now, now + days * DAY_S) for one in pools]
    if output is Form.TABLE:
        for number, value in enumerate(told):
            show(*([""] if number else []), *render.parts(value, days))
        return
    found = {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        "at": now,
        "until": now + days * DAY_S,
        "pools": told,
    }
    typer.echo(document(found, output))


def _preview(pool: PoolSpec, now: float, until: float) -> dict[str, Any]:
    spec = pool.scaling
    holds = bounds(spec, now)
    return {
        "pool": pool.name,
        "schedules": len(spec.schedules),
        "min_servers": holds.low,
        "max_servers": holds.high,
        "schedule": holds.schedule,
        "changes": [
            {
                "at": change.at,
                **_local(change.at, change.timezone),
                "min_servers": change.after.low,
                "max_servers": change.after.high,
                "schedule": change.after.schedule,
                "from": {"min_servers": change.before.low, "max_servers": change.before.high},
            }
            for change in timetable.changes(spec, now, until)
        ],
        "clock_changes": [
            {
                "at": change.at,
                **_local(change.at, change.timezone),
                "offset_before_s": change.offset_before_s,
                "offset_after_s": change.offset_after_s,
            }
            for change in timetable.clock_changes(spec, now, until)
        ],
        "notes": [
            {"at": note.at, **_local(note.at, note.timezone), "note": note.text}
            for note in timetable.notes(spec, now, until)
        ],
        "over": [schedule.name for schedule in timetable.over(spec, now)],
    }


def _local(at: float, timezone: str) -> dict[str, Any]:
    """The moment on the schedule's own clock, and whether daylight saving time holds there."""
    moment = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(timezone))
    return {"local": moment.isoformat(), "timezone": timezone, "dst": bool(moment.dst())}
