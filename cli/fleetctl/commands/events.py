"""`fleetctl events`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl.failure import Interrupted
from fleetctl.fleet import Fleet
from fleetctl.render import events as render
from fleetctl.render.output import json_line

if TYPE_CHECKING:
    from fleet_controller.journal import Event

app = typer.Typer(rich_markup_mode=None, add_completion=False)

POLL_S = 0.5


class EventForm(StrEnum):
    TABLE = "table"
    JSON = "json"


@app.command()
def events(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens next, until Ctrl-C.")
    ] = False,
    number: Annotated[
        int, typer.Option("--number", "-n", min=0, help="How many of the newest to show.")
    ] = 50,
    output: Annotated[
        EventForm, typer.Option("--output", "-o", help="json: one object a line.")
    ] = EventForm.TABLE,
) -> None:
    """What happened to the fleet and why, oldest first: decisions, starts, stops, failures."""
    with Fleet.to_read(ctx) as fleet:
        _events(fleet, follow, number, output)


def _events(fleet: Fleet, follow: bool, number: int, output: EventForm) -> None:
    try:
        with fleet.history() as journal:
            last = 0
            if journal is not None:
                newest = journal.events(limit=max(1, number))
                last = newest[-1].id if newest else 0
                _tell(newest if number else [], output)
                while follow:
                    time.sleep(POLL_S)
                    fresh = journal.events(after=last)
                    last = fresh[-1].id if fresh else last
                    _tell(fresh, output)
            if not last:
                typer.echo("nothing has happened yet; start with fleetctl up", err=True)
    except KeyboardInterrupt:
        raise Interrupted("stopped following; the fleet goes on") from None


def _tell(happened: Iterable[Event], output: EventForm) -> None:
    for event in happened:
        typer.echo(json_line(_object(event)) if output is EventForm.JSON else render.event_line(event))


def _object(event: Event) -> dict[str, Any]:
    """One event for programs; what its kind adds (`data`) lies beside the fields that all have."""
    return {
        **event.data,
        "schema": "fleetctl/events/v1",
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "pool": event.pool,
        "host": event.host,
        "reason": event.reason,
    }
