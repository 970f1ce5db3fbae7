"""Errand: one of the safe mends of `fleetctl doctor --fix`, by its name. Each may be done again without harm."""

from __future__ import annotations

import getpass
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.files import folder, remove
from fleet_controller.hosts.keeper.leftovers import left_over
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """{"said": what was done}."""
    place = Place(args)
    if args["mend"] == "folder":
        folder(place.root)
        return {"said": f"{place.root} is there, for this user alone"}
    if args["mend"] == "left-overs":
        paths = left_over(place)
        for path in paths:
            remove(path)
        return {"said": "removed {}".format(", ".join(paths) or "nothing: there was nothing left")}
    if args["mend"] == "linger":
        return as_root(args, ["loginctl", "enable-linger", getpass.getuser()], "services of this user stay")
    if args["mend"] == "persistence":
        return as_root(args, ["nvidia-smi", "-pm", "1"], "persistence mode is on")
    raise Trouble("config", "no mend is called {}".format(args["mend"]), "This is a bug in fleetctl")


def as_root(args: dict[str, Any], argv: list[str], then: str) -> dict[str, Any]:
    done = elevation_of(args).run(argv)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())[-300:]
        raise Trouble("command", "{} failed: {}".format(" ".join(argv), said), "Run it by hand on the host")
    return {"said": then}
