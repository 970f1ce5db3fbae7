"""`fleetctl config schema`."""

from __future__ import annotations

import json

import typer

from fleet_controller.spec import schema as spec_schema

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def config() -> None:
    """What fleet.yaml may hold."""


@app.command()
def schema() -> None:
    """Print the JSON Schema of fleet.yaml, for editors that complete and check it."""
    typer.echo(json.dumps(spec_schema.json_schema(), indent=2))
