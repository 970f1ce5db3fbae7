"""`fleetctl exec`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl import sudo as asking
from fleetctl.commands.options import AskSudoPassword, duration
from fleetctl.failure import USAGE, Failed, Interrupted
from fleetctl.fleet import Fleet
from fleetctl.lines import Lines
from fleetctl.render.chorus import Chorus
from fleetctl.render.output import json_line
from fleetctl.render.text import age, clean
from fleetctl.selection import Hosts, Pool, hosts_meant

if TYPE_CHECKING:
    from fleet_controller.hosts.machine import Machine
    from fleet_controller.hosts.transport import Output
    from fleetctl.sidebyside import Done

app = typer.Typer(rich_markup_mode=None, add_completion=False)

# Of what a command says, so much of stdout and of stderr is kept for JSON: its beginning and its end.
KEPT_BYTES = 1024 * 1024
MOST_STDIN_BYTES = 16 * 1024 * 1024


class ExecForm(StrEnum):
    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class Piece:
    """Bytes that a command wrote."""

    error: bool
    data: bytes


@dataclass
class Heard:
    """What one host's command has written so far: as lines for a person, or kept for JSON."""

    out: Lines = field(default_factory=Lines)
    err: Lines = field(default_factory=Lines)
    kept: tuple[Output, Output] | None = None


@app.command(context_settings={"allow_interspersed_args": False})
def execute(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND [ARG]...", help="The program and its arguments, as they are: no shell."
        ),
    ] = None,
    host: Hosts = None,
    pool: Pool = None,
    shell: Annotated[
        str | None,
        typer.Option(
            "--shell", metavar="TEXT", help='Let sh run this text there; COMMAND and ARGs are its "$@".'
        ),
    ] = None,
    sudo: Annotated[bool, typer.Option("--sudo", help="Run it as root.")] = False,
    ask_sudo_password: AskSudoPassword = False,
    stdin: Annotated[
        Path | None,
        typer.Option(
            "--stdin", metavar="FILE", help='What it reads; "-": what is piped in here. Else nothing.'
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, max=1024, help="On so many hosts at once.")
    ] = 16,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", parser=duration, metavar="DURATION", help="How long it may take on a host."
        ),
    ] = 600.0,
    no_prefix: Annotated[
        bool, typer.Option("--no-prefix", help="Only with one host: its output without the host's name.")
    ] = False,
    output: Annotated[
        ExecForm, typer.Option("--output", "-o", help="json: one object a host, as each is done.")
    ] = ExecForm.TABLE,
) -> None:
    """Run a command on hosts, side by side. Without --host and --pool: on all of fleet.yaml.

    Exit code: 0 where it ended with 0 everywhere, 3 where it did so somewhere, 4 where no host was reached, else 1.
    """
    # Not at the top: it brings paramiko.
    from fleet_controller.hosts.machines import Machines
    from fleet_controller.hosts.sudo import SudoPassword
    from fleetctl.sidebyside import SideBySide

    words = command or []
    if shell is not None:
        words = ["sh", "-c", shell, "sh", *words]
    if not words or not words[0]:
        raise Failed('no command; write it behind "--", as: fleetctl exec -- uptime', USAGE)
    fleet = Fleet.of(ctx)
    names = [one.name for one in hosts_meant(fleet.spec, host or (), pool)]
    if no_prefix and len(names) != 1:
        raise Failed(f"--no-prefix is for one host, and these are {len(names)}; name one with --host", USAGE)
    if ask_sudo_password and not sudo:
        raise Failed("--ask-sudo-password is for --sudo; give both", USAGE)
    if ask_sudo_password and str(stdin) == "-" and not sys.stdin.isatty():
        raise Failed(
            "--ask-sudo-password and --stdin - both read what is piped in; give --stdin a file", USAGE
        )
    data = _read(stdin)
    password = SudoPassword(asking.ask(ask_sudo_password))
    with Machines(fleet.spec, fleet.folder.path, password) as machines:

        def work(name: str, say: Callable[[object], None]) -> int | None:
            machine: Machine = machines.machine(name)
            return machine.execute(
                words,
                lambda data: say(Piece(False, data)),
                lambda data: say(Piece(True, data)),
                limit_s=timeout,
                sudo=sudo,
                stdin=data,
            )

        side = SideBySide(lambda name: machines.machine(name).reach(), work, parallel)
        scribe = _Scribe(names, output, prefix=not no_prefix, timeout_s=timeout)
        try:
            for name, said in side.run(names):
                scribe.hear(name, said)
        except KeyboardInterrupt:
            ended = "; where it ran it is being ended" if scribe.left else ""
            raise Interrupted(f"interrupted before {', '.join(scribe.left)} had done it{ended}") from None
    raise typer.Exit(scribe.exit_code())


class _Scribe:
    """Shows what hosts say, and counts how it ended."""

    def __init__(self, names: list[str], form: ExecForm, *, prefix: bool, timeout_s: float) -> None:
        from fleet_controller.hosts.transport import Output

        self.left = list(names)
        self._json = form is ExecForm.JSON
        # One host's bytes into a file or a pipe stay what they are.
        self._raw = not prefix and not sys.stdout.isatty() and not self._json
        self._chorus = Chorus(names, prefix=prefix)
        self._timeout_s = timeout_s
        self._heard = {
            name: Heard(kept=(Output(KEPT_BYTES), Output(KEPT_BYTES)) if self._json else None)
            for name in names
        }
        self._good = self._failed = self._unreachable = 0

    def hear(self, name: str, said: Any) -> None:
        if not isinstance(said, Piece):
            self._end(name, said)
            return
        heard = self._heard[name]
        if heard.kept is not None:
            heard.kept[said.error].add(said.data)
        elif self._raw and not said.error:
            sys.stdout.flush()
            os.write(sys.stdout.fileno(), said.data)
        else:
            self._show(name, said.error, (heard.err if said.error else heard.out).add(said.data))

    def _show(self, name: str, error: bool, lines: list[str]) -> None:
        for text in lines:
            (self._chorus.err if error else self._chorus.out)(name, text)

    def _end(self, name: str, done: Done[int | None]) -> None:
        self.left.remove(name)
        heard = self._heard.pop(name)
        self._show(name, False, heard.out.end())
        self._show(name, True, heard.err.end())
        trouble = self._trouble(done)
        if done.failure is not None and done.failure.unreachable:
            self._unreachable += 1
        elif trouble:
            self._failed += 1
        else:
            self._good += 1
        if heard.kept is not None:
            out, err = heard.kept
            told = {
                "schema": "fleetctl/exec/v1",
                "host": name,
                "status": done.result,
                "stdout": out.value().decode("utf-8", "replace"),
                "stderr": err.value().decode("utf-8", "replace"),
                "truncated": out.truncated or err.truncated,
                "error": trouble or None,
            }
            typer.echo(json_line(told))
        elif trouble:
            typer.echo(clean(trouble), err=True)

    def _trouble(self, done: Done[int | None]) -> str:
        """Why it is not well; "" where it is."""
        if done.failure is not None:
            return str(done.failure)
        if done.result is None:
            return f"{done.host}: not done after {age(self._timeout_s)}, and ended; --timeout gives it longer"
        if done.result < 0:
            return f"{done.host}: ended by {_signal(-done.result)}"
        return f"{done.host}: exit status {done.result}" if done.result else ""

    def exit_code(self) -> int:
        from fleetctl.sidebyside import exit_code

        return exit_code(self._good, self._failed, self._unreachable)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read(path: Path | None) -> bytes:
    """Raises Failed (usage) where it is too much, OSError where it can't be read."""
    if path is None:
        return b""
    if str(path) == "-":
        data = sys.stdin.buffer.read(MOST_STDIN_BYTES + 1)
    else:
        with path.open("rb") as file:
            data = file.read(MOST_STDIN_BYTES + 1)
    if len(data) > MOST_STDIN_BYTES:
        raise Failed(f"{path} is over {MOST_STDIN_BYTES >> 20} MiB; copy it there with scp first", USAGE)
    return data
