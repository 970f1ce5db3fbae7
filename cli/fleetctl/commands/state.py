"""`fleetctl state`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet_controller.records import UNKNOWN_ACTION
from fleet_controller.statefolder import SQLITE
from fleetctl.commands.options import Timeout, Yes
from fleetctl.failure import FAILED, PARTLY, USAGE, Failed
from fleetctl.fleet import Fleet, ask
from fleetctl.render.output import Form, Output, document
from fleetctl.render.state import table
from fleetctl.render.terminal import can_ask, show
from fleetctl.render.text import clean

if TYPE_CHECKING:
    from fleet_controller.journal import Journal
    from fleet_controller.journal.upkeep import Saved

SCHEMA = "fleetctl/state/v1"
POLL_S = 0.2

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def state() -> None:
    """The state store: what the controller remembers of hosts, pools, decisions, events and API keys."""


@app.command("show")
def show_state(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """Where it is, how large, and whether it is whole."""
    from fleet_controller.journal import upkeep  # SQLAlchemy: see Fleet.journal

    fleet = Fleet.of(ctx)
    path = _file(fleet)
    found, wrong = _told(upkeep.facts, path), _told(upkeep.problems, path)
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        **asdict(found),
        "path": str(found.path),
        "problems": wrong,
    }
    if output is Form.TABLE:
        show(table(told, time.time()))
    else:
        typer.echo(document(told, output))


@app.command()
def check(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """Read all of it: SQLite's own check, and the checksum of each row that is acted on. Exit code 1: it is damaged."""
    from fleet_controller.journal import upkeep

    fleet = Fleet.of(ctx)
    path = _file(fleet)
    wrong = _told(upkeep.problems, path)
    if output is Form.TABLE:
        for problem in wrong:
            typer.echo(clean(problem))
        said = "it is whole" if not wrong else "make it again from the hosts: fleetctl state rebuild"
        typer.echo(clean(f"{path}: {said}"), err=True)
    else:
        typer.echo(document({"schema": SCHEMA, "path": str(path), "problems": wrong}, output))
    raise typer.Exit(FAILED if wrong else 0)


@app.command()
def backup(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the copy goes; it must not be there yet.")
    ],
) -> None:
    """Copy it, as it is at one moment, while the controller goes on."""
    from fleet_controller.journal import upkeep

    path = _file(Fleet.of(ctx))
    _told(lambda source: upkeep.back_up(source, file), path)
    wrong = _told(upkeep.problems, file)
    if wrong:
        raise Failed(f"{file} was written, but it is a copy of a damaged store: {wrong[0]}")
    typer.echo(clean(f"{file}: {file.stat().st_size} bytes, checked"), err=True)


@app.command()
def rebuild(ctx: typer.Context, yes: Yes = False, timeout: Timeout = 120.0) -> None:
    """Make a lost or damaged one again from what the hosts say: agents that run are taken over, nothing is stopped.

    The old file stays beside the new one, with the date in its name. What of it is whole is taken along: API keys,
    whether pools are paused, what they learned. Requests are served meanwhile. Exit code 3: some hosts could not be
    looked at yet; the controller goes on trying.
    """
    fleet = Fleet.of(ctx)
    path = _file(fleet)
    if not yes:
        _confirm(path)
    fleet.folder.ensure()
    with fleet.folder.lock("operator"):
        fleet.controller().stop()
        saved = _renewed(fleet, path)
        if saved.goal == "down":
            typer.echo(f"fleet {fleet.spec.fleet} is down, and stays so", err=True)
            return
        for daemon in (fleet.balancer(), fleet.controller()):
            daemon.ensure()
    with fleet.journal() as journal:
        ask(fleet, journal, "up")
        raise typer.Exit(_await_survey(journal, timeout))


def _renewed(fleet: Fleet, path: Path) -> Saved:
    """Set the old file aside and begin a new one with what was saved of it."""
    from fleet_controller.journal import upkeep

    saved = upkeep.salvage(path)
    aside = upkeep.set_aside(path, time.time())
    typer.echo(clean(f"the old one is {aside}" if aside else f"there is none at {path}"), err=True)
    with fleet.journal() as journal:
        upkeep.put_back(saved, journal)
    if saved.keys:
        typer.echo(f"{len(saved.keys)} API keys were taken along", err=True)
    elif fleet.spec.balancer.keys == "required":
        typer.echo("no API key could be taken along: make new ones with `fleetctl keys create`", err=True)
    return saved


def _await_survey(journal: Journal, timeout_s: float) -> int:
    """Wait until each host that may run an agent was looked at, and tell what was found; the exit code."""
    deadline = time.monotonic() + timeout_s
    while True:
        hosts = journal.hosts()
        unknown = [name for name, host in hosts.items() if host.action_id == UNKNOWN_ACTION]
        if not [name for name in unknown if not hosts[name].retry_at] or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    for name, host in hosts.items():
        if name in unknown:
            typer.echo(clean(f"{name}: not known yet: {host.error or host.reason}"))
        elif host.action_id is not None:
            typer.echo(clean(f"{name}: {host.state}"))
    typer.echo(clean("see `fleetctl status`"), err=True)
    return PARTLY if unknown else 0


def _confirm(path: Path) -> None:
    if not can_ask():
        raise Failed("this gives up the present state store; where nobody can be asked it needs --yes", USAGE)
    if not typer.confirm(clean(f"Give up {path} and make it again from the hosts?"), err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(FAILED)


def _file(fleet: Fleet) -> Path:
    return Path(fleet.folder.journal_url.removeprefix(SQLITE))


def _told(look: Any, path: Path) -> Any:
    from fleet_controller.journal import JournalError

    try:
        return look(path)
    except JournalError as error:
        raise Failed(str(error)) from error
