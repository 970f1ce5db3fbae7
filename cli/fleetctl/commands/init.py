"""`fleetctl init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fleet_controller.spec import template
from fleetctl.discovery import NAME
from fleetctl.failure import USAGE, Failed

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write it.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write a fleet.yaml with every key explained, and the small model that it serves.

    Files that are there already are left alone, and nothing is written, unless --force is given.
    """
    files = {folder / name: text for name, text in template.init_files().items()}
    there = [str(path) for path in files if os.path.lexists(path)]
    if there and not force:
        raise Failed(f"{' and '.join(there)} is there already; --force overwrites it", USAGE)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        typer.echo(f"wrote {path}", err=True)
    typer.echo(f"edit the hosts in {folder / NAME}, then: fleetctl validate, fleetctl up", err=True)
