"""Weights on this host: by their content, hashed once, and known by size and time from then on.

`SHARED/weights/SHA256/file` is one that was sent; `mounted.json` or `sent.json` beside it notes which file was hashed.
"""

from __future__ import annotations

import json
import os

from fleet_controller.hosts.keeper.files import folder, read_json, remove, write


def place_of(shared: str, sha256: str) -> str:
    return os.path.join(shared, "weights", sha256)


def sent_file(shared: str, sha256: str) -> str:
    """Where the weights lie that were sent."""
    return os.path.join(place_of(shared, sha256), "file")


def unchanged(shared: str, sha256: str, target: str) -> bool:
    """Whether `target` was found to have this content, and has not been touched since."""
    noted = read_json(_note(shared, sha256, target))
    try:
        info = os.stat(target)
    except OSError:
        return False
    return noted == {"file": target, "size": info.st_size, "mtime_ns": info.st_mtime_ns}


def note(shared: str, sha256: str, target: str) -> None:
    """`target` has this content now. What was sent is on the disk before this is said."""
    if target == sent_file(shared, sha256):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    info = os.stat(target)
    folder(place_of(shared, sha256))
    text = json.dumps({"file": target, "size": info.st_size, "mtime_ns": info.st_mtime_ns})
    write(_note(shared, sha256, target), text)


def forget(shared: str, sha256: str) -> None:
    remove(place_of(shared, sha256))


def _note(shared: str, sha256: str, target: str) -> str:
    name = "sent.json" if target == sent_file(shared, sha256) else "mounted.json"
    return os.path.join(place_of(shared, sha256), name)
