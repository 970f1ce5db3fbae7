"""`fleetctl logs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated

import typer

from fleet_controller.hosts.failure import HostFailure
from fleetctl.chronology import Told, merged
from fleetctl.commands.options import duration
from fleetctl.daemonlog import DaemonLog
from fleetctl.failure import Failed, Interrupted
from fleetctl.fleet import Fleet
from fleetctl.render.chorus import Chorus
from fleetctl.render.text import clean
from fleetctl.selection import hosts_meant
from fleetctl.sidebyside import Done, SideBySide, exit_code
from fleetctl.watching import Line, Source, Watching

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DAEMONS = ("controller", "balancer")
FETCHED_AT_ONCE = 32


@app.command()
def logs(
    ctx: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="HOST...", help='Hosts by name or glob, "controller" or "balancer".'),
    ],
    number: Annotated[
        int, typer.Option("--number", "-n", min=0, help="How many of the last lines, of each.")
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")
    ] = False,
    since: Annotated[
        float | None,
        typer.Option("--since", parser=duration, metavar="DURATION", help="Only lines of so long ago."),
    ] = None,
) -> None:
    """The end of the logs of hosts' agents (fetched from there), of the controller and of the balancer.

    Of several they come in the order of their times, each line behind its host's name.
    """
    fleet = Fleet.of(ctx)
    with ExitStack() as stack:
        opened = _open(fleet, sources, stack)
        chorus = Chorus(opened, prefix=len(opened) > 1)
        try:
            if follow:
                for name, said in Watching(opened, number, since).run():
                    if isinstance(said, Line):
                        chorus.out(name, said.text)
                    else:
                        typer.echo(clean(said.text), err=True)
            code = _show(opened, chorus, number, since)
        except KeyboardInterrupt:
            raise Interrupted("stopped following; the fleet goes on") from None
    raise typer.Exit(code)


def _open(fleet: Fleet, names: Sequence[str], stack: ExitStack) -> dict[str, Source]:
    """What is to be read, the daemons first. Raises Failed for a daemon that was never started."""
    opened: dict[str, Source] = {}
    for name in DAEMONS:
        path = fleet.folder.path / f"{name}.log"
        if name in names:
            if not path.exists():
                raise Failed(f"no log at {path}: the {name} was never started; start it with `fleetctl up`")
            opened[name] = DaemonLog(path)
    globs = [name for name in names if name not in DAEMONS]
    if globs:
        # Not at the top: it brings paramiko, which the daemons' logs don't need.
        from fleet_controller.hosts.machines import Machines

        machines = stack.enter_context(Machines(fleet.spec, fleet.folder.path))
        for host in hosts_meant(fleet.spec, globs):
            opened[host.name] = machines.machine(host.name)
    return opened


def _show(opened: Mapping[str, Source], chorus: Chorus, number: int, since: float | None) -> int:
    """The end of each, together; the exit code."""
    told: dict[str, Told] = {}
    failures: list[HostFailure] = []
    side = SideBySide(
        lambda name: None,
        lambda name, say: opened[name].follow(None, lines=number, since_s=since),
        FETCHED_AT_ONCE,
    )
    for name, done in side.run(list(opened)):
        assert isinstance(done, Done)
        if done.failure is not None:
            failures.append(done.failure)
        elif done.result is not None:
            told[name] = Told(done.result.lines, done.result.utc_offset_s)
    for name, text in merged({name: told[name] for name in opened if name in told}):
        chorus.out(name, text)
    for name in [name for name in opened if name in told and not told[name].lines]:
        typer.echo(
            f"{name}: no log there yet" if since is None else f"{name}: nothing in that time", err=True
        )
    for failure in failures:
        typer.echo(clean(str(failure)), err=True)
    unreachable = sum(failure.unreachable for failure in failures)
    return exit_code(len(told), len(failures) - unreachable, unreachable)
