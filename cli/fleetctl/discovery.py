"""Which fleet.yaml is meant: the flag, else FLEETCTL_FILE, else ./fleet.yaml and upward."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fleetctl.failure import USAGE, Failed

NAME = "fleet.yaml"
VARIABLE = "FLEETCTL_FILE"


def find(flag: Path | None, environment: Mapping[str, str], folder: Path) -> Path:
    """The fleet file, absolute. Raises Failed (exit 2) where there is none."""
    named = environment.get(VARIABLE)
    if flag is not None:
        return _named(flag, "-f", folder)
    if named:
        return _named(Path(named), VARIABLE, folder)
    for place in (folder, *folder.parents):
        if (place / NAME).is_file():
            return place / NAME
    raise Failed(
        f"no {NAME} in {folder} or any folder above it; "
        f"write one with `fleetctl init`, or name it: fleetctl -f FILE (or {VARIABLE}=FILE)",
        USAGE,
    )


def _named(path: Path, source: str, folder: Path) -> Path:
    full = folder / path.expanduser()
    if full.is_dir():
        raise Failed(f"{path} (from {source}) is a folder; name the file: {path / NAME}", USAGE)
    if not full.is_file():
        raise Failed(f"{path} (from {source}) does not exist; write one with `fleetctl init`", USAGE)
    return full
