"""Errand: note what the release runs with, and remove what no release needs any more."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from fleet_controller.hosts.keeper.environment import MARKER
from fleet_controller.hosts.keeper.files import Lock, folder, read_json, remove, write
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.release import links_in, needs

# What another fleetctl of this user may be bringing at this moment is not looked at.
YOUNG_S = 3600


def errand(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    text = json.dumps({"environment": args["environment"]})
    write(place.path("releases", args["key"], "needs.json"), text)
    removed = []
    with Lock(place.path("releases", ".lock"), 60):
        for name in superfluous(place, args["key"], args["keep"]):
            remove(place.path("releases", name))
            removed.append(f"release {name}")
    kept = [name for name in listed(place.path("releases")) if not name.startswith(".")]
    environments = {str(needs(place, name).get("environment")) for name in kept}
    with Lock(os.path.join(folder(place.path("environments")), ".lock"), 60):
        for name in listed(place.path("environments")):
            if not name.startswith(".") and not name.endswith(".part") and name not in environments:
                remove(place.path("environments", name))
                removed.append(f"environment {name}")
    removed += collected(place)
    return {"removed": removed}


def superfluous(place: Place, key: str, keep: int) -> list[str]:
    """Releases beyond the `keep` that were used last. Not among them: this one, and the one that ran last."""
    base = place.path("releases")
    names = [name for name in listed(base) if not name.startswith(".") and name != key]
    names.sort(key=lambda name: os.lstat(os.path.join(base, name)).st_mtime, reverse=True)
    ran = str((read_json(place.config) or {}).get("release", ""))
    kept = [name for name in names if name == ran]
    kept += [name for name in names if name != ran]
    return kept[max(1, keep - 1) :]


def collected(place: Place) -> list[str]:
    """Remove wheels and weights that nothing of this user on this host leads to; what was removed."""
    wheels: set[str] = set()
    weights: set[str] = set()
    for root in place.neighbours():
        for name in listed(os.path.join(root, "environments")):
            about = read_json(os.path.join(root, "environments", name, MARKER)) or {}
            wheels.update(about.get("wheels", []))
        for name in listed(os.path.join(root, "releases")):
            links = links_in(os.path.join(root, "releases", name))
            weights.update(link["sha256"] for link in links.values())
    removed = []
    for kind, wanted in (("wheels", wheels), ("weights", weights)):
        base = os.path.join(place.shared, kind)
        for name in listed(base):
            path = os.path.join(base, name)
            if len(name) == 64 and name not in wanted and time.time() - os.lstat(path).st_mtime > YOUNG_S:
                remove(path)
                removed.append(f"{kind} {name[:12]}")
    return removed


def listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
