"""A release on this host: is it whole?"""

from __future__ import annotations

import os

from fleet_controller.hosts.keeper.files import read_json, sha256
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble

HASH_AGAIN_BELOW = 4 * 1024 * 1024


def intact(place: Place, key: str) -> bool:
    """Is this release here whole? Sizes of all files, and the hashes of those up to 4 MiB, are looked at again."""
    base = place.path("releases", key)
    marker = read_json(os.path.join(base, "release.json"))
    if marker is None or marker.get("key") != key:
        return False
    for name, (size, digest) in marker["files"].items():
        path = os.path.join(base, name)
        try:
            if os.stat(path).st_size != size or (size <= HASH_AGAIN_BELOW and sha256(path) != digest):
                return False
        except OSError:
            return False
    return True


def not_installed(key: str) -> Trouble:
    return Trouble(
        "release", f"release {key} is not installed here, or not whole", "Install it, then start again"
    )
