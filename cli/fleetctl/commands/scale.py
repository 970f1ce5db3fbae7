"""`fleetctl scale`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from fleet_controller.spec import FleetSpec, PoolSpec, document
from fleetctl import follow, sudo
from fleetctl.commands.options import AskSudoPassword, Timeout, Wait
from fleetctl.failure import USAGE, Failed, Interrupted
from fleetctl.fleet import Fleet, ask
from fleetctl.render import rollout as render
from fleetctl.render.text import clean
from fleetctl.rollout import Ledger, Rising

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def scale(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="[POOL=]N", help="The number of servers, and of which pool.")
    ],
    wait: Wait = True,
    timeout: Timeout = 600.0,
    ask_sudo_password: AskSudoPassword = False,
) -> None:
    """Set how many servers a pool runs, within min_servers..max_servers, and wait until it does.

    Automatic scaling goes on from there; `fleetctl autoscale pause` keeps the number.
    """
    fleet = Fleet.of(ctx)
    pool, servers = parse(target, fleet.spec)
    fleet.need_controller()
    sudo.hand_over(fleet, sudo.ask(ask_sudo_password))
    with fleet.journal() as journal:
        after = follow.newest_event(journal)
        asked_at = time.time()
        typer.echo(clean(ask(fleet, journal, "scale", pool=pool.name, servers=servers)), err=True)
        if not wait:
            return
        ledger = Ledger(pool.hosts, asked_at, fleet.spec.controller.interval)
        rising = Rising(ledger, [pool.name], servers)
        try:
            status, late = follow.until(fleet, journal, ledger, rising.settled, "up", after, timeout)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; the controller goes on scaling pool {pool.name} to {servers}. "
                "Watch it with `fleetctl status --watch`"
            ) from None
    render.failures(ledger.failures, sys.stderr)
    if late:
        render.pending(rising, status, timeout, sys.stderr)
    pictures = [p for p in status.get("pools", []) if p["name"] == pool.name]
    render.pools(pictures, sys.stdout)
    for picture in pictures:
        if picture["desired"] != servers and not late:
            why = (picture["last_decision"] or {}).get("reason") or "it decided otherwise"
            raise Failed(
                f"pool {pool.name} was asked for {servers}, and automatic scaling has gone on to {picture['desired']} "
                f"since: {clean(why)}. To keep a number: fleetctl autoscale pause {pool.name}"
            )
    raise typer.Exit(rising.exit_code(status, late))


def parse(target: str, spec: FleetSpec) -> tuple[PoolSpec, int]:
    """The pool and the number that `[POOL=]N` names. Raises Failed (exit 2) saying what is allowed."""
    name, given, count = target.rpartition("=")
    if not (count.isascii() and count.isdigit()):
        raise Failed(f'"{target}" is not [POOL=]N; write it like 3 or {spec.pools[0].name}=3', USAGE)
    if not given and len(spec.pools) > 1:
        choices = ", ".join(f"{p.name}={count}" for p in spec.pools)
        raise Failed(f"there are {len(spec.pools)} pools; say which one: {choices}", USAGE)
    pool = spec.pool(name) if given else spec.pools[0]
    servers = int(count)
    lowest, highest = bounds(pool)
    if not lowest <= servers <= highest:
        key = "min_servers" if servers < lowest else "max_servers"
        hint = "; `fleetctl down` stops the whole fleet" if servers == 0 else ""
        raise Failed(
            f"{_place(spec, pool, key)}: pool {pool.name} may have {lowest} to {highest} servers, not {servers}; "
            f"change {key} there{hint}",
            USAGE,
        )
    return pool, servers


def bounds(pool: PoolSpec) -> tuple[int, int]:
    """The widest bounds that may hold at some time of the day: the pool's own and its schedules'."""
    scaling = pool.scaling
    lows, highs = [scaling.min_servers], [scaling.max_servers]
    for schedule in scaling.schedules:
        for value in (schedule.min_servers, schedule.max_servers, schedule.servers):
            if value is not None:
                lows.append(value)
                highs.append(value)
    return min(lows), max(highs)


def _place(spec: FleetSpec, pool: PoolSpec, key: str) -> str:
    """`fleet.yaml:12` where `key` of the pool's scaling is written, or where it would belong."""
    steps = ("pools", spec.pools.index(pool), "scaling", key)
    line, _ = document.read(spec.source).spot(steps, key=True)
    return f"{spec.source}:{line}"
