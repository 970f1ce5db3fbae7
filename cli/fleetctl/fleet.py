"""The fleet that a command works on: its spec, its state folder, its journal and its daemons."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fleet_controller import spec
from fleet_controller.door import daemons
from fleet_controller.fleetfile import last_good
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import SQLITE, StateFolder
from fleetctl import discovery
from fleetctl.failure import USAGE, Failed, Interrupted
from fleetctl.render.text import clean

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

ANSWER_TIMEOUT_S = 20.0
POLL_S = 0.1


@dataclass(frozen=True)
class Fleet:
    """What fleet.yaml says and where its state lies. Making one changes nothing on disk."""

    spec: FleetSpec
    folder: StateFolder

    @classmethod
    def of(cls, ctx: typer.Context) -> Fleet:
        """The fleet of this command line. Raises Failed where no file is found, SpecError where it is wrong."""
        loaded = spec.load(fleet_file(ctx))
        return cls(loaded, StateFolder.of(loaded))

    @classmethod
    @contextmanager
    def to_read(cls, ctx: typer.Context) -> Iterator[Fleet]:
        """The same for a command that only looks.

        Where fleet.yaml is broken it sees the fleet by the last good one, with which the controller goes on. What is
        wrong is told, and the command ends with USAGE all the same.
        """
        file = fleet_file(ctx)
        try:
            loaded, broken = spec.load(file), ""
        except spec.SpecError as error:
            good = last_good(file)
            if good is None:
                raise
            loaded, broken = good, str(error)
        if broken:
            typer.echo(
                clean(f"{broken}\n{file.name} is not in force; this is the fleet by the last good one"),
                err=True,
            )
        yield cls(loaded, StateFolder.of(loaded))
        if broken:
            raise typer.Exit(USAGE)

    @property
    def started(self) -> bool:
        """Whether there is any state to read. Where a database server holds it, only opening it can tell."""
        url = self.folder.journal_url
        return not url.startswith(SQLITE) or Path(url.removeprefix(SQLITE)).exists()

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The state store, made where there is none. Raises Failed where it can't be used."""
        # Not at the top: SQLAlchemy and alembic take half a second that validate, init and --help don't need.
        from fleet_controller.journal import Journal, JournalError

        try:
            opened = Journal.open(self.folder.journal_url)
        except JournalError as error:
            raise Failed(str(error)) from error
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def history(self) -> Iterator[Journal | None]:
        """The state store, or None (and nothing is made) where the fleet was never started."""
        if not self.started:
            yield None
            return
        with self.journal() as opened:
            yield opened

    def controller(self) -> daemons.Daemon:
        return daemons.controller(self.spec, self.folder)

    def balancer(self) -> daemons.Daemon:
        return daemons.balancer(self.spec, self.folder)

    def controller_runs(self) -> bool:
        return self.started and self.controller().find() is not None

    def need_controller(self) -> None:
        """Raises Failed unless there is a controller to ask."""
        if not self.controller_runs():
            raise Failed("the controller is not running; start it with `fleetctl up`")


def fleet_file(ctx: typer.Context) -> Path:
    """The fleet file of this command line, absolute. Raises Failed where there is none."""
    flag = ctx.find_root().obj
    return discovery.find(flag, os.environ, Path.cwd())


def ask(
    fleet: Fleet,
    journal: Journal,
    kind: str,
    begin: Callable[[], None] = lambda: None,
    **arguments: Any,
) -> str:
    """Have the controller do something and return what it answered. `begin` starts it, once the request lies there:
    a controller that comes up finds it before it does anything else.

    Raises Failed where it refuses or does not answer; the request is then taken back. Raises Interrupted on Ctrl-C.
    """
    request = journal.ask(kind, **arguments)
    controller = fleet.controller()
    try:
        try:
            begin()
        except Exception:  # whatever kept it from starting: nobody is to find the request later
            journal.withdraw(request)
            raise
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            answer = journal.answer(request)
            if answer is not None and answer.done:
                if not answer.ok:
                    raise Failed(answer.message)
                return answer.message
            if controller.find() is None:
                journal.withdraw(request)
                raise Failed(f"the controller ended before it answered: {controller.last_words()}")
            if time.monotonic() > deadline:
                journal.withdraw(request)
                raise Failed(
                    f"the controller did not answer within {ANSWER_TIMEOUT_S:.0f} s and the request was taken back; "
                    "see `fleetctl logs controller`"
                )
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        journal.withdraw(request)
        raise Interrupted("interrupted; the request was taken back, nothing was asked of the fleet") from None


def drop_left_requests(fleet: Fleet, journal: Journal) -> None:
    """Take back what was asked of a controller that does not run: whoever asked it was killed, or has given up."""
    if fleet.controller().find() is None:
        for request in journal.asked():
            journal.withdraw(request.id)
