"""Errand: what of the release is here; where to put the archive if it is not."""

from __future__ import annotations

import os
import time
from typing import Any

from fleet_controller.hosts.keeper.files import folder, free_bytes, no_room, read_json, remove
from fleet_controller.hosts.keeper.interpreter import python_of, version_of
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.release import intact


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """What of the release is here; where to put the archive if it is not."""
    place = Place(args)
    python, base = python_of(place, args)
    if not base:
        version_of(python)
    ready = not base or (read_json(os.path.join(base, "environment.json")) or {}).get("complete") is True
    if intact(place, args["key"]):
        return {"present": True, "ready": ready}
    releases = folder(folder(place.root), "releases")
    free = free_bytes(releases)
    need = 2 * args["size"] + (1 << 20)
    if free < need:
        raise no_room(releases, f"the release needs {need / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
    for name in os.listdir(releases):
        old = os.path.join(releases, name)
        if name.startswith(".") and time.time() - os.lstat(old).st_mtime > 3600:
            remove(old)  # what an interrupted transfer left
    return {"present": False, "ready": ready, "upload": os.path.join(releases, ".{}.tar".format(args["key"]))}
