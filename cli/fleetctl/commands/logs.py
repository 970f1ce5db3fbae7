"""`fleetctl logs`."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from fleetctl.failure import Failed, Interrupted
from fleetctl.fleet import Fleet
from fleetctl.render.text import clean

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DAEMONS = ("controller", "balancer")
DAEMON_POLL_S = 0.3
HOST_POLL_S = 2.0
# How much of a host's log is fetched again at each look, to find what is new in it.
OVERLAP_LINES = 1000


@app.command()
def logs(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="HOST", help='A host of fleet.yaml, or "controller" or "balancer".')
    ],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many of the last lines.")] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")
    ] = False,
) -> None:
    """The end of the log of a host's agent (fetched from there), of the controller, or of the balancer."""
    fleet = Fleet.of(ctx)
    try:
        if source in DAEMONS:
            _daemon(fleet.folder.path / f"{source}.log", source, number, follow)
        else:
            fleet.spec.host(source)
            _host(fleet, source, number, follow)
    except KeyboardInterrupt:
        raise Interrupted("stopped following; the fleet goes on") from None


def _daemon(path: Path, name: str, number: int, follow: bool) -> None:
    """A log file on this machine. Raises Failed where there is none."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise Failed(f"no log at {path}: the {name} was never started; start it with `fleetctl up`") from None
    with file:
        for text in deque(file, maxlen=number):
            typer.echo(clean(text).rstrip("\n"))
        while follow:
            text = file.readline()
            if text:
                typer.echo(clean(text), nl=False)
            else:
                time.sleep(DAEMON_POLL_S)


def _host(fleet: Fleet, name: str, number: int, follow: bool) -> None:
    """A log on the host. Raises HostFailure."""
    # Not at the top: it brings paramiko, which the daemons' logs don't need.
    from fleet_controller.hosts.machine import Machines

    with Machines(fleet.spec, fleet.folder.path) as machines:
        machine = machines.machine(name)
        shown = machine.tail(max(number, OVERLAP_LINES) if follow else number).splitlines()
        if not shown and not follow:
            typer.echo(f"{name}: no log there yet", err=True)
        _print(shown[-number:])
        while follow:
            time.sleep(HOST_POLL_S)
            latest = machine.tail(max(number, OVERLAP_LINES)).splitlines()
            _print(added(shown, latest))
            shown = latest


def added(before: list[str], after: list[str]) -> list[str]:
    """What `after` has behind `before`, both being the last lines of the same growing log.

    The longest overlap counts. All of `after` where there is none: the log was begun anew.
    """
    for gone in range(len(before)):
        kept = len(before) - gone
        if before[gone:] == after[:kept]:
            return after[kept:]
    return after


def _print(lines: list[str]) -> None:
    for text in lines:
        typer.echo(clean(text))
