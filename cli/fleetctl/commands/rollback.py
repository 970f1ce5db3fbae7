"""`fleetctl rollback`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_controller.spec import FleetSpec
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet, ask
from fleetctl.operator import only_operator_of
from fleetctl.render.output import Form, Output, document
from fleetctl.render.text import clean

if TYPE_CHECKING:
    from fleet_controller.hosts.install.earlier import EarlierReleases
    from fleet_controller.hosts.install.release import Release

SCHEMA = "fleetctl/rollback/v1"

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def rollback(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[POOL|MODEL]", help="The pool, or all pools that serve this model."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="RELEASE", help="This release instead of the last one that served."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Follow fleet.yaml again.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Only show what there is to go back to.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """Go back to the release that a pool served with before, as it was: its models, its agent, its settings.

    Hosts are replaced one by one, as for any other release, and new ones start with it too. It holds until fleet.yaml
    (a model's folder and fleetctl itself included) asks for another release than the one that was left, or until
    `fleetctl rollback --clear`. fleet.yaml itself is not changed.
    """
    from fleet_controller.hosts.install.earlier import EarlierReleases, Pin

    fleet = Fleet.of(ctx)
    pools = _pools(fleet.spec, name)
    earlier = EarlierReleases(fleet.folder.path / "releases")
    wanted = {pool: _wanted(fleet.spec, pool) for pool in pools}
    if show:
        _show(earlier, wanted, output)
        return
    if clear:
        sent_back = [pool for pool in pools if pool in earlier.pins()]
        if not sent_back:
            raise Failed(f"{', '.join(pools)}: follows fleet.yaml already")
        with only_operator_of(fleet, "fleetctl rollback --clear"):
            earlier.pin(dict.fromkeys(sent_back))
            _tell_controller(fleet, sent_back, None)
        return
    chosen = {pool: _target(fleet.spec, earlier, pool, wanted[pool], to) for pool in pools}
    if len(set(chosen.values())) > 1:
        raise Failed(
            f"these pools go back to different releases; name one of them: {', '.join(pools)}", USAGE
        )
    now = time.time()
    with only_operator_of(fleet, f"fleetctl rollback {' '.join(pools)}"):
        earlier.pin({pool: Pin(key, wanted[pool].key, now) for pool, key in chosen.items()})
        _tell_controller(fleet, pools, next(iter(chosen.values())))
    asked = ", ".join(sorted({one.key for one in wanted.values()}))
    text = (
        f"fleet.yaml still asks for {asked}: mend it, then `fleetctl up`; to return without mending: "
        "`fleetctl rollback --clear`"
    )
    typer.echo(clean(text), err=True)


def _pools(spec: FleetSpec, name: str | None) -> list[str]:
    known = [pool.name for pool in spec.pools]
    if name is None:
        if len(known) > 1:
            raise Failed(f"there are {len(known)} pools; say which one: {', '.join(known)}", USAGE)
        return known
    if name in known:
        return [name]
    found = [pool.name for pool in spec.pools if name in pool.models]
    if not found:
        models = [model.name for model in spec.models]
        raise Failed(f"there is no pool or model {name}; there are {', '.join([*known, *models])}", USAGE)
    return found


def _wanted(spec: FleetSpec, pool: str) -> Release:
    from fleet_controller.hosts.install import release

    return release.build([spec.model(model) for model in spec.pool(pool).models])


def _target(spec: FleetSpec, earlier: EarlierReleases, pool: str, wanted: Release, to: str | None) -> str:
    """The release to go back to; it is here, whole, and serves the same models. Raises Failed."""
    from fleet_controller.hosts.install.earlier import NothingEarlier

    try:
        pin = earlier.pins().get(pool)
        if to is None and pin is not None and pin.instead_of == wanted.key:
            raise Failed(
                f"pool {pool} runs release {pin.key} already, to which it was sent back; "
                f"an even earlier one: fleetctl rollback {pool} --to RELEASE (--list shows them)"
            )
        key = to or earlier.previous(pool, wanted)
        if key == wanted.key:
            raise Failed(
                f"release {key} is the one that fleet.yaml asks for: fleetctl rollback {pool} --clear"
            )
        names = sorted(model.name for model in earlier.read(key).models)
    except NothingEarlier as trouble:
        raise Failed(f"{trouble}; `fleetctl rollback {pool} --list` shows what there is") from trouble
    if names != sorted(spec.pool(pool).models):
        raise Failed(
            f"release {key} serves {', '.join(names)}, pool {pool} has {', '.join(spec.pool(pool).models)} by now; "
            "change the models of the pool in fleet.yaml instead"
        )
    return key


def _tell_controller(fleet: Fleet, pools: list[str], to: str | None) -> None:
    if not fleet.controller_runs():
        typer.echo("the controller is not running; `fleetctl up` starts it with this", err=True)
        return
    with fleet.journal() as journal:
        typer.echo(clean(ask(fleet, journal, "rollback", pools=pools, to=to)), err=True)


def _show(earlier: EarlierReleases, wanted: dict[str, Release], form: Form) -> None:
    pins = earlier.pins()
    rows: list[dict[str, Any]] = []
    for pool, release in wanted.items():
        pin = pins.get(pool)
        held = pin if pin is not None and pin.instead_of == release.key else None
        in_force = release.key if held is None else held.key
        rows.append(
            {
                "pool": pool,
                "wanted": release.key,
                "in_force": in_force,
                "served": earlier.served(pool),
                "sent_back_at": None if held is None else held.at,
            }
        )
    if form is not Form.TABLE:
        typer.echo(document({"schema": SCHEMA, "pools": rows}, form))
        return
    for row in rows:
        typer.echo(
            clean(f"{row['pool']}: {row['in_force']} is in force, fleet.yaml asks for {row['wanted']}")
        )
        for key in reversed(row["served"]):
            typer.echo(clean(f"  served with {key}"))
