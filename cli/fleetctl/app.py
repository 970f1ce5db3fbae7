"""The command line: which commands there are, where each one lives, and the options that all share."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from fleetctl.failure import Interrupted


class Entry(NamedTuple):
    """A command: its module in fleetctl.commands, the Typer in there, and its line in `fleetctl --help`."""

    module: str
    attribute: str
    help: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Before the first start": {
        "init": Entry("init", "app", "Write a commented fleet.yaml."),
        "validate": Entry("validate", "app", "Check fleet.yaml; every problem with its line."),
        "doctor": Entry("doctor", "app", "What is wrong with this machine and the hosts, and what mends it."),
        "config": Entry("config", "app", "The JSON Schema of fleet.yaml."),
        "bundle": Entry("bundle", "app", "One file with all that hosts need, for sites without internet."),
        "simulate": Entry("simulate", "app", "What a pool's scaling would do on recorded traffic."),
    },
    "Run": {
        "plan": Entry("plan", "app", "Show what the controller would do now, and do nothing."),
        "up": Entry("up", "app", "Bring the fleet up and wait until it serves."),
        "down": Entry("down", "app", "Drain and stop everything that was started."),
        "rollback": Entry("rollback", "app", "Go back to the release that served before."),
        "scale": Entry("scale", "app", "Set the number of servers of a pool."),
        "drain": Entry("cordon", "drain_app", "Take a host out: finish its requests, stop it, keep it out."),
        "uncordon": Entry("cordon", "uncordon_app", "Let a drained host be used again."),
        "autoscale": Entry("autoscale", "app", "Pause or resume automatic scaling."),
        "schedule": Entry("schedule", "app", "When the schedules will change a pool's bounds."),
        "keys": Entry("keys", "app", "API keys: who may send requests."),
    },
    "Look": {
        "status": Entry("status", "app", "The fleet at a glance."),
        "hosts": Entry("hosts", "app", "The inventory and the state of each host."),
        "events": Entry("events", "app", "What happened, and why."),
        "explain": Entry("explain", "app", "Why a pool has as many servers as it has, or had."),
        "traffic": Entry("traffic", "app", "The requests of the last days, to simulate with."),
        "state": Entry("state", "app", "The state store: see, check, copy it, make it again."),
        "logs": Entry("logs", "app", "The logs of hosts' agents, of the controller and the balancer."),
        "exec": Entry("execute", "app", "Run a command on hosts, side by side."),
        "support-bundle": Entry(
            "support_bundle", "app", "One file with all that shows what is wrong, without secrets."
        ),
    },
    "Daemons (what `up` starts)": {
        "controller": Entry("daemon", "controller_app", "Run the controller in the foreground."),
        "balancer": Entry("daemon", "balancer_app", "Run the balancer in the foreground."),
        "agent": Entry("daemon", "agent_app", "Run an agent in the foreground."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyCommands(TyperGroup):
    """Imports a command's module when that command runs, so that `--help` and `validate` start fast."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `fleetctl --help` lists the commands"
            if not cmd_name.startswith("-"):
                ctx.fail(f"no such command: {cmd_name}{hint}")
            return None
        module = importlib.import_module(f"fleetctl.commands.{entry.module}")
        command = typer.main.get_command(getattr(module, entry.attribute))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), entry.help) for name, entry in section.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # commands that start something say more than this; the others changed nothing
            raise Interrupted("interrupted") from None


app = typer.Typer(
    cls=LazyCommands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        # Not at the top: it takes a twentieth of a second at every start.
        import importlib.metadata

        typer.echo(f"fleetctl {importlib.metadata.version('fleetctl')}")
        raise typer.Exit


@app.callback()
def fleetctl(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="The fleet file. Else: FLEETCTL_FILE, then ./fleet.yaml and upward.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001  its callback prints it and ends
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One YAML file, one command, one inference endpoint on a fleet of GPU machines.

    Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 failed, 2 usage or a bad fleet.yaml,
    3 partly done (some hosts failed), 4 nothing reachable, 130 interrupted.
    """
    ctx.obj = file
