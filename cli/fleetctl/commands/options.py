"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_controller.spec.duration import seconds
from fleetctl.bounds import Share, share


def duration(value: str | float) -> float:
    """Seconds; the default comes as a number already. Raises typer.BadParameter, reported with exit code 2."""
    try:
        return seconds(float(value) if isinstance(value, str) and value.isdigit() else value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="HOST[,HOST...]",
        help='Touch these hosts only, by name or glob, as "gpu-a,rack2-*"; may be given several times.',
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", metavar="N", min=1, max=1024, help="At most so many hosts at once."),
]
MaxFail = Annotated[
    Share | None,
    typer.Option(
        "--max-fail",
        parser=share,
        metavar="N|P%",
        help="Begin no other host once so many have failed, or so many percent.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done, or at once.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", parser=duration, metavar="DURATION", help='How long to wait: "90s", "10m".'),
]
AskSudoPassword = Annotated[
    bool,
    typer.Option(
        "--ask-sudo-password",
        help="Ask once for the password that sudo wants on the hosts (piped in: its first line); only memory holds it.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
PoolName = Annotated[str | None, typer.Argument(metavar="[POOL]", help="Only this pool; all of them else.")]
