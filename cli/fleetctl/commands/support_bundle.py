"""`fleetctl support-bundle`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from fleet_controller import spec as specs
from fleet_controller.fleetfile import last_good
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder
from fleetctl.commands.options import duration
from fleetctl.failure import FAILED, USAGE, Failed
from fleetctl.fleet import fleet_file
from fleetctl.render.text import clean
from fleetctl.selection import Hosts, hosts_meant
from fleetctl.support.known import known_secrets
from fleetctl.support.pack import Pack
from fleetctl.support.redact import Redactor

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def support_bundle(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where it goes; it must not be there yet."),
    ] = None,
    host: Hosts = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", parser=duration, metavar="DURATION", help="How long hosts have to answer."),
    ] = 60.0,
) -> None:
    """One file with all that somebody needs to see what is wrong, and without secrets. Changes nothing.

    It is made whatever is broken: fleet.yaml, the state store, the controller, hosts. What could not be had is named in
    it, with the reason.
    """
    at, began = time.time(), time.monotonic()
    file = fleet_file(ctx)
    fleet, broken = _spec(file)
    name = fleet.fleet if fleet is not None else "unknown"
    target = output or Path(
        f"fleetctl-support-{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(at))}.tar.gz"
    )
    if target.exists():
        raise Failed(f"{target} is there already; name another file with -o", USAGE)
    hosts = [] if fleet is None else [one.name for one in hosts_meant(fleet, host or ())]
    _gather_into(target, file, fleet, broken, hosts, timeout, at, began)


def _gather_into(
    target: Path,
    file: Path,
    fleet: FleetSpec | None,
    broken: str,
    hosts: list[str],
    timeout_s: float,
    at: float,
    began: float,
) -> None:
    from fleetctl.support import gather

    folder = StateFolder.of(fleet) if fleet is not None else StateFolder(file.parent / ".fleetctl", "")
    pack = Pack(Redactor(known_secrets(folder.path, fleet, os.environ)))
    if broken:
        pack.lack("fleet.yaml (as a fleet)", broken)
    pack.add_json("versions.json", gather.versions())
    _say("fleet.yaml, logs, state")
    gather.own_files(pack, file, folder.path)
    if fleet is not None:
        gather.front_door(pack, folder)
    _say("status, events, plan, doctor")
    gather.commands(pack, file, [pool.name for pool in fleet.pools] if fleet is not None else [], hosts)
    if fleet is not None and hosts:
        from fleet_controller.hosts.machines import Machines
        from fleetctl.support.visits import visit

        _say(f"{len(hosts)} hosts, at most {timeout_s:.0f} s")
        with Machines(fleet, folder.path) as machines:
            visit(pack, machines, hosts, timeout_s)
    manifest = pack.write(target, fleet.fleet if fleet is not None else "unknown", at, began)
    for lacking in manifest["missing"]:
        typer.echo(clean(f"not in it: {lacking['name']}: {lacking['why'].splitlines()[0]}"), err=True)
    typer.echo(
        clean(
            f"{len(manifest['files'])} files, {target.stat().st_size} bytes; look through it before you send it"
        ),
        err=True,
    )
    typer.echo(str(target))


def _spec(file: Path) -> tuple[FleetSpec | None, str]:
    """fleet.yaml, or the last good one and what is wrong with the present. Raises Failed where there is none."""
    try:
        return specs.load(file), ""
    except specs.SpecError as error:
        if not file.exists():
            raise Failed(str(error), FAILED) from None
        return last_good(file), str(error)


def _say(what: str) -> None:
    typer.echo(what, err=True)
