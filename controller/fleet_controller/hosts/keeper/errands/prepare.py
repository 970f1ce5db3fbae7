"""Errand: what of the release is here, for which wheels the host is, and where to put what is not here."""

from __future__ import annotations

import os
from typing import Any

from fleet_controller.hosts.keeper.environment import whole
from fleet_controller.hosts.keeper.files import folder, free_bytes, no_room
from fleet_controller.hosts.keeper.interpreter import environment_of, facts_of, version_of
from fleet_controller.hosts.keeper.leftovers import clear
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.release import intact, needs
from fleet_controller.hosts.keeper.weights import place_of, sent_file, unchanged


def errand(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    facts: dict[str, Any] = {}
    if args["interpreter"]:
        version_of(os.path.expanduser(args["interpreter"]))
    else:
        facts = facts_of(args["python"])
    present = intact(place, args["key"])
    noted = needs(place, args["key"]).get("environment") if present else None
    answer = {
        "present": present,
        "facts": facts,
        "noted": noted,
        "environment": bool(noted) and whole(environment_of(place, str(noted))),
        "weights": {one["sha256"]: state(place, one) for one in args["weights"]},
        "wheels": wheels(place),
        "shared": place.shared,
    }
    releases = folder(folder(place.root), "releases")
    answer["upload"] = os.path.join(releases, ".{}.tar".format(args["key"]))
    clear(place)
    answer["free"] = free = free_bytes(releases)
    need = 2 * args["size"] + (1 << 20)
    if not present and free < need:
        raise no_room(releases, f"the release needs {need / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
    for one in args["weights"]:
        if not one["mount"]:
            folder(place_of(place.shared, one["sha256"]))
    return answer


def state(place: Place, one: dict[str, Any]) -> str:
    """ "known": hashed before and untouched since; "there": to be hashed; "missing"."""
    target = one["mount"] or sent_file(place.shared, one["sha256"])
    if unchanged(place.shared, one["sha256"], target):
        return "known"
    return "there" if one["mount"] or os.path.isfile(target) else "missing"


def wheels(place: Place) -> list[str]:
    """The sha256 of each wheel that was sent whole; it is hashed before it is used."""
    base = os.path.join(place.shared, "wheels")
    try:
        names = os.listdir(base)
    except OSError:
        return []
    return [
        name
        for name in names
        if not name.startswith(".")
        and any(not f.startswith(".") for f in os.listdir(os.path.join(base, name)))
    ]
