"""`fleetctl drain` and `fleetctl uncordon`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fleet_controller.lifecycle import HostState
from fleetctl import follow
from fleetctl.commands.options import Timeout, Wait
from fleetctl.failure import UNREACHABLE, Failed, Interrupted
from fleetctl.fleet import Fleet, ask
from fleetctl.render.text import age, clean, line
from fleetctl.rollout import PATIENCE_INTERVALS, Ledger

drain_app = typer.Typer(rich_markup_mode=None, add_completion=False)
uncordon_app = typer.Typer(rich_markup_mode=None, add_completion=False)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="A host of fleet.yaml.")]


@drain_app.command()
def drain(ctx: typer.Context, host: HostName, wait: Wait = True, timeout: Timeout = 600.0) -> None:
    """Send the host nothing new, let it finish what it has, stop it, and keep it out until `fleetctl uncordon`.

    The controller starts another host in its place where the pool needs one. Returns once the host is off, and at once
    where it can't be reached (exit code 4): it gets nothing new all the same, and is stopped once it is reached again.
    """
    fleet = Fleet.of(ctx)
    fleet.spec.host(host)
    fleet.need_controller()
    with fleet.journal() as journal:
        after = follow.newest_event(journal)
        asked_at = time.time()
        typer.echo(clean(ask(fleet, journal, "drain", host=host)), err=True)
        if not wait or fleet.spec.pool_of(host) is None:
            return
        ledger = Ledger([host], asked_at, fleet.spec.controller.interval)

        def settled(status: Mapping[str, Any]) -> bool:
            seen = ledger.of_interest(status).get(host)
            if not ledger.see(status) or seen is None or not seen.get("cordoned"):
                return False
            state = HostState(seen["state"])
            if state is HostState.FAILED:
                return ledger.same_for(PATIENCE_INTERVALS)
            return state in (HostState.OFF, HostState.UNREACHABLE)

        try:
            status, late = follow.until(fleet, journal, ledger, settled, journal.goal(), after, timeout)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; the controller goes on draining {host}. Take it back with `fleetctl uncordon {host}`"
            ) from None
    seen = ledger.of_interest(status).get(host) or {}
    state = seen.get("state")
    if late:
        raise Failed(f"{host} is {state} after {age(timeout)}; the controller goes on")
    if state != HostState.OFF:
        why = line(seen.get("error") or seen.get("reason"))
        why = why if why.startswith(f"{host}:") else f"{host}: {why}"
        if state != HostState.UNREACHABLE:
            raise Failed(why)
        raise Failed(
            f"{why}\n{host} is not stopped, and an agent may still run there. It gets no new requests; the controller "
            "stops it once it is reached again",
            UNREACHABLE,
        )
    typer.echo(f"{host} is off", err=True)


@uncordon_app.command()
def uncordon(ctx: typer.Context, host: HostName) -> None:
    """Let a drained host be started again when its pool needs it."""
    fleet = Fleet.of(ctx)
    fleet.spec.host(host)
    fleet.need_controller()
    with fleet.journal() as journal:
        typer.echo(clean(ask(fleet, journal, "uncordon", host=host)), err=True)
