"""`fleetctl down`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from fleetctl import follow
from fleetctl.commands.options import DryRun, Timeout, Yes
from fleetctl.failure import OK, USAGE, Failed, Interrupted
from fleetctl.fleet import Fleet, ask
from fleetctl.render import rollout as render
from fleetctl.render.terminal import can_ask
from fleetctl.render.text import clean
from fleetctl.rollout import Falling, Ledger

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def down(ctx: typer.Context, yes: Yes = False, dry_run: DryRun = False, timeout: Timeout = 600.0) -> None:
    """Drain and stop every host that runs, then the controller, then the balancer.

    Asks before it does so; where there is no terminal to ask on, it wants --yes. Hosts that can't be reached are
    told and left (exit code 3); `fleetctl down` again tries them once more.
    """
    fleet = Fleet.of(ctx)
    with fleet.history() as journal:
        running = _running(journal)
        daemons = (
            [d.name for d in (fleet.controller(), fleet.balancer()) if d.find()] if fleet.started else []
        )
        if journal is None or not (running or daemons or journal.goal() == "up"):
            typer.echo(f"fleet {fleet.spec.fleet}: nothing is up", err=True)
            return
        if dry_run:
            for name in [*running, *(f"the {daemon}" for daemon in daemons)]:
                typer.echo(f"would stop {name}")
            return
        if not yes:
            _confirm(fleet, len(running))
        code = OK
        if running or journal.goal() == "up":
            code = _stop_hosts(fleet, journal, list(running), timeout)
        with fleet.folder.lock("operator"):
            for daemon in (fleet.controller(), fleet.balancer()):
                if daemon.stop():
                    typer.echo(f"stopped the {daemon.name}", err=True)
    typer.echo(
        f"fleet {fleet.spec.fleet} is down" if code == OK else f"fleet {fleet.spec.fleet} is partly down",
        err=True,
    )
    raise typer.Exit(code)


def _running(journal: Journal | None) -> list[str]:
    return [] if journal is None else [name for name, host in journal.hosts().items() if host.state != "off"]


def _confirm(fleet: Fleet, hosts: int) -> None:
    """Raises Failed (exit 2) where nobody can be asked, and typer.Exit where the answer is no."""
    if not can_ask():
        raise Failed("`fleetctl down` stops the fleet and there is no terminal to ask on; add --yes", USAGE)
    question = f"Stop {hosts} host{'s' * (hosts != 1)} of fleet {fleet.spec.fleet}?"
    if not typer.confirm(question, err=True):
        typer.echo("nothing was stopped", err=True)
        raise typer.Exit(1)


def _stop_hosts(fleet: Fleet, journal: Journal, running: list[str], timeout_s: float) -> int:
    """Have the controller stop every host, and wait for it. Raises Failed when the time is up."""
    after = follow.newest_event(journal)
    asked_at = time.time()
    with fleet.folder.lock("operator"):
        fleet.controller().ensure()
        typer.echo(clean(ask(fleet, journal, "down")), err=True)
    falling = Falling(Ledger(running, asked_at, fleet.spec.controller.interval))
    try:
        status, late = follow.until(fleet, journal, falling.ledger, falling.settled, "down", after, timeout_s)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; the controller goes on stopping the fleet. Run `fleetctl down` again to wait for it"
        ) from None
    left: dict[str, dict[str, Any]] = falling.left(status)
    render.failures(
        {name: str(host.get("error") or host.get("reason")) for name, host in left.items()}, sys.stderr
    )
    code = falling.exit_code(status, late)
    if late:
        still = ", ".join(f"{name} is {host['state']}" for name, host in sorted(left.items()))
        raise Failed(
            f"not done after {timeout_s:.0f} s: {still}; "
            "the controller goes on; run `fleetctl down` again to wait for it",
            code,
        )
    return code
