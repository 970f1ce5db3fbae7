"""The boundary: whatever went wrong becomes one message on stderr and an exit code."""

from __future__ import annotations

import os
import traceback

import typer

from fleetctl.failure import FAILED, UNREACHABLE, USAGE, Failed
from fleetctl.render.text import clean


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
    from fleet_controller.door.daemons import DaemonError
    from fleet_controller.hosts.failure import HostFailure
    from fleet_controller.spec import SpecError, UnknownName
    from fleet_controller.statefolder import Locked

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
