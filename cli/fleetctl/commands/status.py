"""`fleetctl status`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.live import Live

from fleetctl import picture
from fleetctl.failure import Interrupted
from fleetctl.fleet import Fleet
from fleetctl.render import status as render
from fleetctl.render.output import Form, Output, document, json_line
from fleetctl.render.terminal import console, interactive, show

app = typer.Typer(rich_markup_mode=None, add_completion=False)

WATCH_S = 1.0


@app.command()
def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it, until Ctrl-C.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """The endpoint, the controller, each pool and each host.

    Where the controller is not running this is the last known picture, and it says how old that is.
    """
    with Fleet.to_read(ctx) as fleet:
        _status(fleet, watch, output)


def _status(fleet: Fleet, watch: bool, output: Form) -> None:
    if watch:
        try:
            _watch(fleet, output)
        except KeyboardInterrupt:
            raise Interrupted("stopped watching; the fleet goes on") from None
        return
    with fleet.history() as journal:
        current = picture.take(fleet, journal, time.time())
    if output is Form.TABLE:
        if render.never_started(current):
            typer.echo(render.NOTHING_UP, err=True)
        else:
            show(*render.parts(current))
    else:
        typer.echo(document(current, output))


def _watch(fleet: Fleet, output: Form) -> None:
    """On a terminal the table is redrawn in place; elsewhere a new picture is printed whenever the fleet changed."""
    if output is Form.TABLE and interactive(sys.stdout):
        screen = console(sys.stdout)
        with Live(console=screen, auto_refresh=False, screen=True) as live:
            for current in _pictures(fleet):
                live.update(render.page(current, screen.height), refresh=True)
        return
    told: object = None
    for current in _pictures(fleet):
        news = render.essence(current)
        if news == told:
            continue
        told = news
        if output is Form.JSON:
            typer.echo(json_line(current))
        elif output is Form.YAML:
            typer.echo(document(current, output))
        else:
            show(*render.parts(current), "")


def _pictures(fleet: Fleet) -> Iterator[dict[str, Any]]:
    """A picture each second, for ever."""
    while not fleet.started:
        yield picture.take(fleet, None, time.time())
        time.sleep(WATCH_S)
    with fleet.journal() as journal:
        while True:
            yield picture.take(fleet, journal, time.time())
            time.sleep(WATCH_S)
