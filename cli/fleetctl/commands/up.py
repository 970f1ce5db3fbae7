"""`fleetctl up`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl import follow
from fleetctl.commands import plan
from fleetctl.commands.options import DryRun, Timeout, Wait, Yes
from fleetctl.failure import FAILED, Interrupted
from fleetctl.fleet import Fleet, ask
from fleetctl.render import rollout as render
from fleetctl.render import terminal
from fleetctl.render.output import Form
from fleetctl.render.text import clean
from fleetctl.rollout import Ledger, Rising

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def up(
    ctx: typer.Context,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = 600.0,
    trust_on_first_use: Annotated[
        bool,
        typer.Option(
            "--trust-on-first-use",
            help="Accept and remember the SSH keys of hosts that known_hosts does not name yet.",
        ),
    ] = False,
    allow_mass_removal: Annotated[
        bool,
        typer.Option(
            "--allow-mass-removal",
            help="Accept that more than 30 % of the hosts have left fleet.yaml at once.",
        ),
    ] = False,
) -> None:
    """Start the balancer and the controller, and wait until every pool has the hosts that it should have.

    Safe to run again at any time: what runs already is left alone. The only question is whether to trust new
    host keys, and only after --trust-on-first-use on a terminal; --yes answers it.
    """
    fleet = Fleet.of(ctx)
    if dry_run:
        plan.tell(fleet, Form.TABLE)
        return
    if trust_on_first_use:
        _trust(fleet, yes)
    fleet.folder.ensure()
    with fleet.journal() as journal:
        after = follow.newest_event(journal)
        asked_at = time.time()
        if allow_mass_removal:
            journal.allow_removal(host.name for host in fleet.spec.hosts)
        with fleet.folder.lock("operator"):
            _start_daemons(fleet)
            typer.echo(clean(ask(fleet, journal, "up")), err=True)
        if not wait:
            typer.echo("watch it with: fleetctl status --watch", err=True)
            return
        rising = Rising(
            Ledger([h for p in fleet.spec.pools for h in p.hosts], asked_at, fleet.spec.controller.interval),
            [p.name for p in fleet.spec.pools],
        )
        raise typer.Exit(_watch(fleet, journal, rising, after, timeout))


def _watch(fleet: Fleet, journal: Journal, rising: Rising, after: int, timeout_s: float) -> int:
    try:
        status, late = follow.until(fleet, journal, rising.ledger, rising.settled, "up", after, timeout_s)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; the controller goes on bringing the fleet up. "
            "Watch it with `fleetctl status --watch`, wait again with `fleetctl up`, stop it with `fleetctl down`"
        ) from None
    render.failures(rising.ledger.failures, sys.stderr)
    if late:
        render.pending(rising, status, timeout_s, sys.stderr)
    code = rising.exit_code(status, late)
    render.summary(fleet.spec, status, sys.stdout)
    return code


def _start_daemons(fleet: Fleet) -> None:
    for daemon in (fleet.balancer(), fleet.controller()):
        if daemon.ensure():
            typer.echo(f"started the {daemon.name}; its log: {daemon.log_file}", err=True)


def _trust(fleet: Fleet, yes: bool) -> None:
    """Show the keys of hosts that nobody trusts yet, and note them down.

    On a terminal the operator may still say no (typer.Exit 1, nothing noted down). Raises HostFailure where
    known_hosts can't be written.
    """
    # Not at the top: paramiko takes a third of a second.
    from fleet_controller.hosts.ssh import keys

    names = [host.name for host in fleet.spec.hosts if not host.is_local]
    seen: list[keys.NewKey] = []
    # Trusting a jump host brings the hosts behind it into view, so there may be several rounds.
    while new := [key for key in keys.unknown(fleet.spec, names) if key not in seen]:
        for key in new:
            typer.echo(clean(f"{key.host}: new host key {key.key_type} {key.fingerprint}"), err=True)
        if not yes and terminal.can_ask():
            question = f"Trust {'this key' if len(new) == 1 else f'these {len(new)} keys'}?"
            if not typer.confirm(question, err=True):
                typer.echo("nothing was trusted or started", err=True)
                raise typer.Exit(FAILED)
        for key in new:
            keys.add(key)
            typer.echo(clean(f"{key.host}: noted in {key.known_hosts}"), err=True)
        seen += new
