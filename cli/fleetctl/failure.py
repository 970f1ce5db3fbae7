"""What a command can end with: the exit codes, and the one message for each failure."""

from __future__ import annotations

import os
import traceback

import typer

OK = 0
FAILED = 1
USAGE = 2
PARTLY = 3
UNREACHABLE = 4
INTERRUPTED = 130


class Failed(Exception):
    """A command can't go on. `str()` is what the operator reads; `exit_code` one of the above."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(Failed):
    """The operator pressed Ctrl-C; the message says what goes on without them and how to take it up again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, INTERRUPTED)


def report(error: Exception) -> int:
    """Tell the operator about `error` on stderr and return the exit code. FLEETCTL_DEBUG=1 adds the traceback."""
    text, code = explain(error)
    if os.environ.get("FLEETCTL_DEBUG"):
        typer.echo("".join(traceback.format_exception(error)), err=True)
    typer.echo(text, err=True)
    return code


def explain(error: Exception) -> tuple[str, int]:
    """The message and the exit code for `error`."""
    # Imported only when something failed: they cost a fifth of a second that `fleetctl --help` need not pay.
    from fleet_controller.daemons import DaemonError
    from fleet_controller.hosts.failure import HostFailure
    from fleet_controller.spec import SpecError, UnknownName
    from fleet_controller.statefolder import Locked
    from fleetctl.render.text import clean

    if isinstance(error, Failed):
        return clean(str(error)), error.exit_code
    if isinstance(error, SpecError | UnknownName):
        return clean(str(error)), USAGE
    if isinstance(error, HostFailure):
        return clean(str(error)), UNREACHABLE if error.unreachable else FAILED
    if isinstance(error, Locked):
        return f"another fleetctl is at work: {error}; wait for it to end and try again", FAILED
    if isinstance(error, DaemonError):
        return clean(str(error)), FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", FAILED
    return (
        f"this is a bug in fleetctl: {type(error).__name__}: {clean(str(error))}; "
        "FLEETCTL_DEBUG=1 shows where it happened",
        FAILED,
    )
