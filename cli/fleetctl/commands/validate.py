"""`fleetctl validate`."""

from __future__ import annotations

import typer

from fleet_controller import spec
from fleet_controller.spec import FleetSpec, Problem, SpecError
from fleetctl.failure import USAGE
from fleetctl.fleet import fleet_file
from fleetctl.render.output import Form, Output, document
from fleetctl.render.text import clean

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def validate(ctx: typer.Context, output: Output = Form.TABLE) -> None:
    """Check fleet.yaml and tell every problem with its line, its path and a way out.

    Nothing is connected to and nothing is written. Exit code 2 where there is a problem.
    """
    path = fleet_file(ctx)
    try:
        loaded = spec.load(path)
    except SpecError as error:
        if output is Form.TABLE:
            raise
        typer.echo(document(_verdict(str(path), None, error.problems), output))
        raise typer.Exit(USAGE) from None
    if output is Form.TABLE:
        counts = {"host": len(loaded.hosts), "pool": len(loaded.pools), "model": len(loaded.models)}
        listed = ", ".join(f"{n} {noun}{'s' * (n != 1)}" for noun, n in counts.items())
        typer.echo(clean(f"{path}: fleet {loaded.fleet} is fine: {listed}"))
    else:
        typer.echo(document(_verdict(str(path), loaded, []), output))


def _verdict(path: str, loaded: FleetSpec | None, problems: list[Problem]) -> dict[str, object]:
    return {
        "schema": "fleetctl/validate/v1",
        "file": path,
        "valid": loaded is not None,
        "fleet": loaded.fleet if loaded else None,
        "hosts": len(loaded.hosts) if loaded else None,
        "pools": len(loaded.pools) if loaded else None,
        "models": len(loaded.models) if loaded else None,
        "problems": [
            {"message": p.message, "line": p.line, "column": p.column, "path": p.path} for p in problems
        ],
    }
