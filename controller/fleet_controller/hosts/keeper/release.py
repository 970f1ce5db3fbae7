"""A release on this host: is it whole, and what does it need beside its files?"""

from __future__ import annotations

import os
from typing import Any

from fleet_controller.hosts.keeper.files import read_json, sha256
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.weights import unchanged

HASH_AGAIN_BELOW = 4 * 1024 * 1024


def intact(place: Place, key: str) -> bool:
    """Is this release here whole? The hashes of files up to 4 MiB are looked at again, of others size and time."""
    base = place.path("releases", key)
    marker = read_json(os.path.join(base, "release.json"), 1 << 26)
    if marker is None or marker.get("key") != key:
        return False
    times = marker.get("times", {})
    try:
        for name, (size, digest) in marker["files"].items():
            path = os.path.join(base, name)
            info = os.stat(path)
            if info.st_size != size:
                return False
            known = size > HASH_AGAIN_BELOW and times.get(name) == info.st_mtime_ns
            if not known and sha256(path) != digest:
                return False
        for name, link in marker.get("links", {}).items():
            if os.readlink(os.path.join(base, name)) != link["target"]:
                return False
    except OSError:
        return False
    return True


def links_in(base: str) -> dict[str, dict[str, Any]]:
    """sha256 and target of each file of weights that the release in `base` leads to, by its name there."""
    marker = read_json(os.path.join(base, "release.json"), 1 << 26) or {}
    links = marker.get("links", {})
    return links if isinstance(links, dict) else {}


def needs(place: Place, key: str) -> dict[str, Any]:
    """What was noted when it was installed: the environment that it runs in, "" for an interpreter that was given."""
    return read_json(place.path("releases", key, "needs.json")) or {}


def proved(place: Place, key: str) -> None:
    """Nothing of it is half or changed, its weights included. Raises Trouble."""
    if not intact(place, key):
        raise not_installed(key)
    for name, link in links_in(place.path("releases", key)).items():
        if not unchanged(place.shared, link["sha256"], link["target"]):
            raise Trouble(
                "release",
                f"the weights {name} are not what was checked (sha256 {link['sha256'][:12]}...): {link['target']}",
                "Install it again: they are checked, and sent again if they are damaged",
            )


def not_installed(key: str) -> Trouble:
    return Trouble(
        "release", f"release {key} is not installed here, or not whole", "Install it, then start again"
    )
