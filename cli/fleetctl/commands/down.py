"""`fleetctl down`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from fleetctl import follow, sudo
from fleetctl.bounds import bounds_of, limit_of
from fleetctl.commands.options import AskSudoPassword, DryRun, Limit, MaxFail, Parallel, Timeout, Wait, Yes
from fleetctl.failure import OK, USAGE, Failed, Interrupted
from fleetctl.fleet import Fleet, ask, drop_left_requests
from fleetctl.operator import only_operator, still_ours
from fleetctl.render import rollout as render
from fleetctl.render.terminal import can_ask
from fleetctl.render.text import clean
from fleetctl.rollout import Falling, Ledger, operation

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def down(
    ctx: typer.Context,
    yes: Yes = False,
    dry_run: DryRun = False,
    limit: Limit = None,
    parallel: Parallel = None,
    max_fail: MaxFail = None,
    wait: Wait = True,
    timeout: Timeout = 600.0,
    ask_sudo_password: AskSudoPassword = False,
) -> None:
    """Drain and stop every host that runs, then the controller, then the balancer.

    With --limit only these hosts: they stay off until `fleetctl up`, and the fleet goes on without them. Asks before it
    does so; where there is no terminal to ask on, it wants --yes. Hosts that can't be reached are switched off where
    they have power control; those that are not proved to be off are told and left (exit code 3, or 4);
    `fleetctl down` again tries them once more.
    """
    fleet = Fleet.of(ctx)
    hosts = limit_of(fleet.spec, limit)
    with fleet.history() as journal:
        running = _running(journal, hosts)
        daemons = (
            [d.name for d in (fleet.controller(), fleet.balancer()) if d.find()]
            if fleet.started and hosts is None
            else []
        )
        if journal is None or not (running or daemons or (hosts is None and journal.goal() == "up")):
            which = "nothing is up" if hosts is None else f"none of {', '.join(hosts)} is up"
            typer.echo(f"fleet {fleet.spec.fleet}: {which}", err=True)
            return
        if dry_run:
            for name in [*running, *(f"the {daemon}" for daemon in daemons)]:
                typer.echo(f"would stop {name}")
            return
        if not yes:
            _confirm(fleet, len(running))
        password = sudo.ask(ask_sudo_password)
        command = "fleetctl down" if hosts is None else f"fleetctl down --limit {','.join(hosts[:3])}"
        with only_operator(fleet, journal, command) as hold:
            code, halted = OK, False
            if running or journal.goal() == "up":
                bounds = bounds_of(hosts, parallel, max_fail, by=f"{hold.holder.user}@{hold.holder.machine}")
                going = _Going(fleet, journal, list(running), bounds, lambda: still_ours(hold))
                going.ask(password)
                if not wait:
                    typer.echo("watch it with: fleetctl status --watch", err=True)
                    return
                code, halted = going.end(timeout)
            for daemon in () if halted or hosts is not None else (fleet.controller(), fleet.balancer()):
                if daemon.stop():
                    typer.echo(f"stopped the {daemon.name}", err=True)
    what = f"fleet {fleet.spec.fleet}" if hosts is None else ", ".join(hosts)
    verb = "is" if hosts is None or len(hosts) == 1 else "are"
    typer.echo(f"{what} {verb} {'down' if code == OK else 'partly down'}", err=True)
    raise typer.Exit(code)


def _running(journal: Journal | None, limit: list[str] | None) -> list[str]:
    hosts = {} if journal is None else journal.hosts()
    return [name for name, host in hosts.items() if host.state != "off" and (limit is None or name in limit)]


def _confirm(fleet: Fleet, hosts: int) -> None:
    """Raises Failed (exit 2) where nobody can be asked, and typer.Exit where the answer is no."""
    if not can_ask():
        raise Failed("`fleetctl down` stops the fleet and there is no terminal to ask on; add --yes", USAGE)
    question = f"Stop {hosts} host{'s' * (hosts != 1)} of fleet {fleet.spec.fleet}?"
    if not typer.confirm(question, err=True):
        typer.echo("nothing was stopped", err=True)
        raise typer.Exit(1)


class _Going:
    """Hosts on their way down: asked of the controller, and waited for."""

    def __init__(
        self,
        fleet: Fleet,
        journal: Journal,
        running: list[str],
        bounds: dict[str, Any],
        pulse_check: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._journal = journal
        self._bounds = bounds
        self._pulse_check = pulse_check
        self._limited = "hosts" in bounds
        self._after = follow.newest_event(journal)
        ledger = Ledger(running, time.time(), fleet.spec.controller.interval)
        self._falling = Falling(ledger, bounds["id"], self._limited)

    def ask(self, password: str | None) -> None:
        """Raises Failed."""
        drop_left_requests(self._fleet, self._journal)
        said = ask(self._fleet, self._journal, "down", lambda: self._begin(password), bounds=self._bounds)
        typer.echo(clean(said), err=True)

    def _begin(self, password: str | None) -> None:
        self._fleet.controller().ensure()
        sudo.hand_over(self._fleet, password)

    def end(self, timeout_s: float) -> tuple[int, bool]:
        """The exit code, and whether it stopped after too many failures. Raises Failed when the time is up."""
        falling = self._falling
        goal = "up" if self._limited else "down"
        try:
            status, late = follow.until(
                self._fleet,
                self._journal,
                falling.ledger,
                falling.settled,
                goal,
                self._after,
                timeout_s,
                self._pulse_check,
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; the controller goes on stopping the fleet. Run `fleetctl down` again to wait for it"
            ) from None
        left = falling.left(status)
        broken = left
        if told := operation(status, falling.operation):
            broken = {name: host for name, host in left.items() if name not in told["left"]}
        render.failures(
            {name: str(host.get("error") or host.get("reason")) for name, host in broken.items()}, sys.stderr
        )
        render.unproven([name for name, host in broken.items() if host["state"] == "unreachable"], sys.stderr)
        if not (self._limited or late or falling.halted(status)):  # else the controller goes on
            render.held([name for name, host in broken.items() if host["state"] == "failed"], sys.stderr)
        render.unfinished(told, sys.stderr)
        code = falling.exit_code(status, late)
        if late:
            still = ", ".join(f"{name} is {host['state']}" for name, host in sorted(left.items()))
            raise Failed(
                f"not done after {timeout_s:.0f} s: {still}; "
                "the controller goes on; run `fleetctl down` again to wait for it",
                code,
            )
        return code, falling.halted(status)
