"""`fleetctl controller run`, `balancer run`, `agent run`: the programs that `up` starts, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from fleet_controller.door import daemons
from fleetctl.fleet import Fleet

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

controller_app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
balancer_app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
agent_app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@controller_app.callback()
def controller() -> None:
    """The control loop."""


@controller_app.command("run", context_settings=PASS_ON)
def controller_run(ctx: typer.Context) -> None:
    """Run fleet-controller; its options may follow. Without any it takes the fleet of -f."""
    if ctx.args:
        _become("fleet_controller", ctx.args)
    fleet = Fleet.of(ctx)
    _exec(daemons.controller(fleet.spec, fleet.folder).argv)


@balancer_app.callback()
def balancer() -> None:
    """The front door."""


@balancer_app.command("run", context_settings=PASS_ON)
def balancer_run(ctx: typer.Context) -> None:
    """Run fleet-balancer; its options may follow. Without any it takes the fleet of -f."""
    if ctx.args:
        _become("fleet_balancer", ctx.args)
    fleet = Fleet.of(ctx)
    daemon = daemons.balancer(fleet.spec, fleet.folder)
    fleet.folder.ensure()
    daemon.prepare()
    _exec(daemon.argv)


@agent_app.callback()
def agent() -> None:
    """One machine's server."""


@agent_app.command("run", context_settings=PASS_ON)
def agent_run(ctx: typer.Context) -> None:
    """Run fleet-agent with the options that follow; `--help` lists them."""
    _become("fleet_agent", ctx.args)


def _become(package: str, arguments: list[str]) -> NoReturn:
    _exec([sys.executable, "-m", package, *arguments])


def _exec(argv: list[str]) -> NoReturn:
    """Replace this process, so that signals and the exit code are the program's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(argv[0], argv)
