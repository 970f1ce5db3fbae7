"""`fleetctl doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl import sudo
from fleetctl.commands.options import AskSudoPassword, DryRun, Yes
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet
from fleetctl.render import terminal
from fleetctl.render.doctor import page
from fleetctl.render.output import Form, Output, document
from fleetctl.render.text import clean
from fleetctl.selection import Hosts, hosts_meant

if TYPE_CHECKING:
    from fleet_controller.hosts.doctor.finding import Finding
    from fleet_controller.hosts.doctor.report import Mend, Report
    from fleet_controller.hosts.doctor.rounds import Rounds
    from fleet_controller.records import HostRecord

SCHEMA = "fleetctl/doctor/v1"

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def doctor(
    ctx: typer.Context,
    host: Hosts = None,
    fix: Annotated[bool, typer.Option("--fix", help="Do the safe mends (below), then look again.")] = False,
    trust_on_first_use: Annotated[
        bool,
        typer.Option(
            "--trust-on-first-use",
            help="With --fix: note down the SSH keys of hosts that known_hosts does not name yet.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what is well, too.")] = False,
    ask_sudo_password: AskSudoPassword = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Form.TABLE,
) -> None:
    """What is wrong with this machine and with the hosts, why it matters, and what mends it. Starts nothing.

    Exit codes: 0 no problem (warnings are none), 1 problems here or on every host, 3 on some hosts, 4 no host reached.

    --fix does, after a question (--yes: without), only what is safe: close private keys, password files and the
    state folder to other users; make install.directory or close it to others; remove what interrupted transfers left
    two days ago or longer; switch on lingering and NVIDIA's persistence mode (both need sudo); and, with
    --trust-on-first-use, note down new host keys. Everything else it tells you to do.
    """
    if trust_on_first_use and not fix:
        raise Failed("--trust-on-first-use is for --fix; give both", USAGE)
    fleet = Fleet.of(ctx)
    names = [one.name for one in hosts_meant(fleet.spec, host or ())]
    # Not at the top: it brings paramiko.
    from fleet_controller.hosts.doctor.report import mends
    from fleet_controller.hosts.doctor.rounds import Rounds
    from fleet_controller.hosts.machines import Machines
    from fleet_controller.hosts.sudo import SudoPassword

    records, trouble = _records(fleet)
    runs = fleet.started and fleet.balancer().find() is not None
    done: list[dict[str, Any]] = []
    password = SudoPassword(sudo.ask(ask_sudo_password))
    with Machines(fleet.spec, fleet.folder.path, password) as machines:
        rounds = Rounds(fleet.spec, machines, fleet.folder.path, records, trouble, runs)
        report = rounds.examine(names)
        if dry_run and fix:
            for mend in mends(report, trust_on_first_use):
                typer.echo(clean(f"would, on {mend.host or 'this machine'}: {mend.says}"), err=True)
        elif fix:
            done, report = _mended(rounds, names, report, mends(report, trust_on_first_use), yes)
    told = _document(fleet, report, done)
    if output is Form.TABLE:
        terminal.show(*page(told, verbose, offer=not fix))
    else:
        typer.echo(document(told, output))
    raise typer.Exit(report.exit_code())


def _records(fleet: Fleet) -> tuple[dict[str, HostRecord], str]:
    """What the journal has of each host, and why it can't be read; an ill journal is no reason to look at nothing."""
    try:
        with fleet.history() as journal:
            return (journal.hosts() if journal is not None else {}), ""
    except Failed as failure:
        return {}, str(failure)
    except OSError as error:
        return {}, f"{fleet.folder.path}: {error.strerror}"


def _mended(
    rounds: Rounds, names: list[str], report: Report, planned: list[Mend], sure: bool
) -> tuple[list[dict[str, Any]], Report]:
    """Do the mends and look again: how each went, and the new report."""
    from fleet_controller.hosts.doctor.report import still
    from fleet_controller.hosts.failure import HostFailure

    if not planned:
        typer.echo("nothing that --fix may mend", err=True)
        return [], report
    for mend in planned:
        typer.echo(clean(f"{mend.host or 'this machine'}: {mend.says}"), err=True)
    if not sure:
        if not terminal.can_ask():
            raise Failed("there is no terminal to ask on; give --yes to do this without a question", USAGE)
        if not typer.confirm("Do this?", err=True):
            typer.echo("nothing was changed", err=True)
            return [], report
    done: list[dict[str, Any]] = []
    for mend in planned:
        said, failed = "", ""
        try:
            said = rounds.mend(mend)
        except HostFailure as failure:
            failed = str(failure)
        except OSError as error:
            failed = f"{error.filename or ''}: {error.strerror or error}"
        typer.echo(clean(f"{mend.host or 'this machine'}: {failed or said}"), err=True)
        done.append({"host": mend.host or None, "mend": mend.name, "said": said, "failed": failed or None})
    after = rounds.examine(names)
    for mend, told in zip(planned, done, strict=True):
        told["mended"] = not still(mend, after)
    return done, after


def _document(fleet: Fleet, report: Report, done: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        "at": report.at,
        "seconds": round(report.seconds, 3),
        "counts": report.counts(),
        "here": [_finding(finding) for finding in report.here],
        "hosts": [
            {
                "name": one.name,
                "address": one.address,
                "reached": one.reached,
                "off": one.off,
                "seconds": round(one.seconds, 3),
                "findings": [_finding(finding) for finding in one.findings],
            }
            for one in report.hosts
        ],
        "mended": done,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"severity": finding.severity.value}
