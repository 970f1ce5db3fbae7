"""Whether a release may be started: whatever is half, changed or missing forbids it."""

from __future__ import annotations

import os
from typing import Any

from fleet_controller.hosts.keeper.interpreter import python_of
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.release import proved


def ready_python(place: Place, args: dict[str, Any]) -> str:
    """The interpreter for the release `key`: its files, its weights and its environment are whole. Raises Trouble."""
    proved(place, args["key"])
    python = python_of(place, args)
    os.utime(place.path("releases", args["key"]))  # the ones that were started last are kept
    return python
