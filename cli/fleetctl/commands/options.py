"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet_controller.spec.duration import seconds


def duration(value: str | float) -> float:
    """Seconds; the default comes as a number already. Raises typer.BadParameter, reported with exit code 2."""
    try:
        return seconds(float(value) if isinstance(value, str) and value.isdigit() else value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done, or at once.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", parser=duration, metavar="DURATION", help='How long to wait: "90s", "10m".'),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
PoolName = Annotated[str | None, typer.Argument(metavar="[POOL]", help="Only this pool; all of them else.")]
