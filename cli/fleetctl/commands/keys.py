"""`fleetctl keys`."""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_controller.door import apikeys
from fleet_controller.records import KeyRecord
from fleet_controller.spec.address import name as checked_name
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet, ask
from fleetctl.render.keys import table
from fleetctl.render.output import Form, Output, document
from fleetctl.render.terminal import show
from fleetctl.render.text import clean

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

SCHEMA = "fleetctl/keys/v1"

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")]


@app.callback()
def keys() -> None:
    """API keys: who may send requests, where fleet.yaml has `balancer: {keys: required}`."""


@app.command()
def create(
    ctx: typer.Context,
    name: KeyName,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", help="Requests a second at most; else no bound.")
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option("--burst", metavar="N", help="Requests at once at most; else a second's worth."),
    ] = None,
    share: Annotated[
        float, typer.Option("--share", metavar="X", help="Weight in the queue, beside the others' 1.")
    ] = 1.0,
    pool: Annotated[
        list[str] | None, typer.Option("--pool", metavar="POOL", help="Only this pool; may be given again.")
    ] = None,
    output: Output = Form.TABLE,
) -> None:
    """Make a key and print it, this once: only its digest is kept."""
    fleet = Fleet.of(ctx)
    pools = tuple(dict.fromkeys(fleet.spec.pool(wanted).name for wanted in pool or ()))
    _check(name, rate, burst, share)
    if share != 1.0 and fleet.spec.balancer.engine == "haproxy":
        raise Failed(
            "--share: HAProxy's queue is not fair among keys; leave it out, or use engine: builtin", USAGE
        )
    fleet.folder.ensure()
    with fleet.journal() as journal:
        from fleet_controller.journal import KeyExists  # SQLAlchemy: see Fleet.journal

        key, record = apikeys.mint(name, time.time(), rate, burst, share, pools)
        try:
            journal.add_key(record)
        except KeyExists:
            raise Failed(
                f"there is a key {name} already; choose another name, or revoke it: fleetctl keys revoke {name}"
            ) from None
        if output is Form.TABLE:
            typer.echo(key)
        else:
            typer.echo(document({"schema": SCHEMA, "key": key, **_entry(record)}, output))
        _tell(fleet, journal, f"{name} is in force")


@app.command("list")
def list_keys(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """The keys in force and what each may do; the keys themselves are kept nowhere."""
    fleet = Fleet.of(ctx)
    with fleet.history() as journal:
        known = journal.api_keys() if journal is not None else []
    if output is Form.TABLE:
        show(table([_entry(key) for key in known], time.time()))
        _remind(fleet)
        return
    found = {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        "required": fleet.spec.balancer.keys == "required",
        "keys": [_entry(key) for key in known],
    }
    typer.echo(document(found, output))


@app.command()
def revoke(ctx: typer.Context, name: KeyName) -> None:
    """Take a key out of force. Who sends it from now on is refused; requests under way finish."""
    fleet = Fleet.of(ctx)
    with fleet.history() as journal:
        if journal is None or not journal.revoke_key(name, time.time()):
            known = [key.name for key in journal.api_keys()] if journal is not None else []
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`fleetctl keys list` shows them"
            raise Failed(f"there is no key {name}; {hint}")
        _tell(fleet, journal, f"{name} is revoked")


def _check(name: str, rate: float | None, burst: int | None, share: float) -> None:
    try:
        checked_name(name)
    except ValueError as error:
        raise Failed(str(error), USAGE) from None
    if rate is not None and not 0.001 <= rate <= 1e6:
        raise Failed(f"--rate {rate:g}: a rate is between 0.001 and 1000000 requests a second", USAGE)
    if burst is not None and rate is None:
        raise Failed("--burst says how far --rate may be overstepped; give --rate too", USAGE)
    if burst is not None and not 1 <= burst <= 1_000_000:
        raise Failed(f"--burst {burst}: a burst is between 1 and 1000000 requests", USAGE)
    if not 0.001 <= share <= 1000:
        raise Failed(f"--share {share:g}: a share is between 0.001 and 1000", USAGE)


def _tell(fleet: Fleet, journal: Journal, done: str) -> None:
    """Have a running balancer told at once; without a controller it is told when the next one starts."""
    if fleet.controller_runs():
        try:
            typer.echo(clean(f"{done}: {ask(fleet, journal, 'keys')}"), err=True)
        except Failed as error:
            raise Failed(
                f"{done} in the state store, but the balancer may not know it yet: {error}"
            ) from None
    else:
        typer.echo(f"{done} once the fleet is up; no controller is running", err=True)
        _remind(fleet)


def _remind(fleet: Fleet) -> None:
    if fleet.spec.balancer.keys == "off":
        typer.echo("nobody is asked for a key: fleet.yaml has balancer.keys: off", err=True)


def _entry(key: KeyRecord) -> dict[str, Any]:
    return {
        "name": key.name,
        "created_at": key.created_at,
        "rate_per_s": key.rate_per_s,
        "burst": key.burst,
        "share": key.share,
        "pools": list(key.pools),
    }
