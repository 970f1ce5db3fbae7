"""`fleetctl up`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl import follow, sudo
from fleetctl.bounds import bounds_of, limit_of
from fleetctl.commands import bundle, plan
from fleetctl.commands.options import AskSudoPassword, DryRun, Limit, MaxFail, Parallel, Timeout, Wait, Yes
from fleetctl.failure import FAILED, USAGE, Failed, Interrupted
from fleetctl.fleet import Fleet, ask, drop_left_requests
from fleetctl.operator import only_operator, still_ours
from fleetctl.render import rollout as render
from fleetctl.render import terminal
from fleetctl.render.output import Form
from fleetctl.render.text import clean
from fleetctl.rollout import Ledger, Rising, operation

if TYPE_CHECKING:
    from fleet_controller.foresight.planfile import PlanFile
    from fleet_controller.journal import Journal

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def up(
    ctx: typer.Context,
    plan_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PLAN]", help="A file of `fleetctl plan --out`: do exactly that.", show_default=False
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    limit: Limit = None,
    parallel: Parallel = None,
    max_fail: MaxFail = None,
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
    ask_sudo_password: AskSudoPassword = False,
    bundle_file: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE",
            help="Load this file of `fleetctl bundle` first; no internet is needed.",
        ),
    ] = None,
) -> None:
    """Start the balancer and the controller, and wait until every pool has the hosts that it should have.

    Safe to run again at any time: what runs already is left alone. With a PLAN exactly what it says is done, or nothing
    where something moved since. The only question is whether to trust new host keys, and only after
    --trust-on-first-use on a terminal; --yes answers it.
    """
    fleet = Fleet.of(ctx)
    applied = None if plan_file is None else _read(plan_file, fleet)
    if applied is not None and limit:
        raise Failed("a plan says by itself which hosts it touches; give --limit to `fleetctl plan`", USAGE)
    hosts = limit_of(fleet.spec, limit) if applied is None else _listed(applied.limit)
    if dry_run:
        plan.tell(fleet, Form.TABLE, hosts)
        if applied is not None:
            _refuse_moved(fleet, applied)
        return
    password = sudo.ask(ask_sudo_password)
    if trust_on_first_use:
        _trust(fleet, yes)
    if applied is not None:
        _refuse_moved(fleet, applied)
        if not applied.planned and fleet.controller_runs():
            typer.echo("the plan has nothing to do, and it still fits", err=True)
            return
    fleet.folder.ensure()
    if bundle_file is not None:
        bundle.take(fleet, bundle_file)
    command = " ".join(
        ["fleetctl up", *([plan_file.name] if plan_file else []), *_shown(hosts if limit else None)]
    )
    with fleet.journal() as journal, only_operator(fleet, journal, command) as hold:
        after = follow.newest_event(journal)
        asked_at = time.time()
        if allow_mass_removal:
            journal.allow_removal(host.name for host in fleet.spec.hosts)
        bounds = bounds_of(hosts, parallel, max_fail, by=f"{hold.holder.user}@{hold.holder.machine}")
        request: dict[str, Any] = {"bounds": bounds}
        if applied is not None:
            request = {
                "bounds": {**bounds, "planned": dict(applied.planned)},
                "basis": applied.basis.model_dump(mode="json"),
            }
        drop_left_requests(fleet, journal)
        typer.echo(
            clean(ask(fleet, journal, "up", lambda: _start_daemons(fleet, password), **request)), err=True
        )
        if not wait:
            typer.echo("watch it with: fleetctl status --watch", err=True)
            return
        rising = Rising(
            Ledger([h for p in fleet.spec.pools for h in p.hosts], asked_at, fleet.spec.controller.interval),
            [p.name for p in fleet.spec.pools],
            operation=bounds["id"],
        )
        raise typer.Exit(_watch(fleet, journal, rising, after, timeout, lambda: still_ours(hold)))


def _read(file: Path, fleet: Fleet) -> PlanFile:
    """Raises Failed."""
    from fleet_controller.foresight.planfile import BadPlan, opened

    try:
        return opened(file.read_text(), str(file), fleet.spec.fleet)
    except BadPlan as bad:
        raise Failed(clean(str(bad)), USAGE) from bad
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failed(
            f"{file}: the plan can't be read: {why}; make one: fleetctl plan --out {file}", USAGE
        ) from error


def _refuse_moved(fleet: Fleet, applied: PlanFile) -> None:
    """Before anything is started. The controller looks once more, for it alone moves hosts. Raises Failed."""
    from fleet_controller.fleetfile import checksum
    from fleet_controller.foresight.basis import stale
    from fleet_controller.preview import moved

    file = checksum(fleet.spec.source.read_bytes())
    with plan.readable(fleet) as known, known.journal() as journal:
        found = moved(known.spec, journal, known.folder, file, applied.basis)
    if found:
        raise Failed(clean(stale(found)))


def _listed(limit: tuple[str, ...] | None) -> list[str] | None:
    return None if limit is None else list(limit)


def _shown(hosts: list[str] | None) -> list[str]:
    return [] if hosts is None else [f"--limit {','.join(hosts[:3])}{',...' if len(hosts) > 3 else ''}"]


def _watch(
    fleet: Fleet,
    journal: Journal,
    rising: Rising,
    after: int,
    timeout_s: float,
    pulse_check: Callable[[], None],
) -> int:
    try:
        status, late = follow.until(
            fleet, journal, rising.ledger, rising.settled, "up", after, timeout_s, pulse_check
        )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; the controller goes on bringing the fleet up. "
            "Watch it with `fleetctl status --watch`, wait again with `fleetctl up`, stop it with `fleetctl down`"
        ) from None
    render.failures(rising.ledger.failures, sys.stderr)
    if late:
        render.pending(rising, status, timeout_s, sys.stderr)
    render.unfinished(operation(status, rising.operation), sys.stderr)
    code = rising.exit_code(status, late)
    render.summary(fleet.spec, status, sys.stdout)
    return code


def _start_daemons(fleet: Fleet, password: str | None) -> None:
    for daemon in (fleet.balancer(), fleet.controller()):
        if daemon.ensure():
            typer.echo(f"started the {daemon.name}; its log: {daemon.log_file}", err=True)
    sudo.hand_over(fleet, password)


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
