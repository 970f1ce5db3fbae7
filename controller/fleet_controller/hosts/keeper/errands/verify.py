"""Errand: hash weights, those that were sent and those on a mount, and note which are what they should be."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from fleet_controller.hosts.keeper.files import Lock, folder
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble, say
from fleet_controller.hosts.keeper.weights import forget, note, sent_file, unchanged


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """The sha256 of those that were sent and are damaged; they are gone then. A mount is the operator's to mend."""
    place = Place(args)
    damaged = []
    with Lock(os.path.join(folder(place.shared, "weights"), ".lock"), 3600):
        for one in args["weights"]:
            target = one["mount"] or sent_file(place.shared, one["sha256"])
            if unchanged(place.shared, one["sha256"], target):
                continue
            actual = one["sha256"] if one["arrived"] else hashed(target, one)
            if actual == one["sha256"]:
                note(place.shared, one["sha256"], target)
            elif one["mount"]:
                raise Trouble(
                    "release",
                    f"{target} has the sha256 {actual}, but {one['sha256']} is pinned",
                    "Put the right file there, or pin this one in fleet.yaml if you trust it",
                )
            else:
                forget(place.shared, one["sha256"])
                damaged.append(one["sha256"])
    return {"damaged": damaged}


def hashed(path: str, one: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    told = time.monotonic()
    done = 0
    try:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
                done += len(chunk)
                if time.monotonic() - told > 1:
                    told = time.monotonic()
                    say(
                        "progress",
                        f"checking the weights {os.path.basename(one['path'])}: {done / 1e9:.1f} GB",
                    )
    except FileNotFoundError:
        if not one["mount"]:
            return "nothing"
        raise Trouble(
            "release",
            f"the weights {path} are not there",
            "Mount the disk that has them on this host, or correct mount in fleet.yaml",
        ) from None
    return digest.hexdigest()
