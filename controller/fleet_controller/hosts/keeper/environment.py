"""A virtual environment on this host: is it whole?

When it is complete, the size and the time of each of its files are noted. Before each start they are compared: that
finds what a full disk, a careless hand or a broken file system did, at the price of looking at some 20,000 names.
"""

from __future__ import annotations

import json
import os
from typing import Any

from fleet_controller.hosts.keeper.files import read, read_json, write

MARKER = "environment.json"
_LISTING = "files.json"
_LIMIT = 1 << 28


def seal(base: str, about: dict[str, Any]) -> None:
    """It is complete as it is now."""
    write(os.path.join(base, _LISTING), json.dumps(_stamps(base)))
    write(os.path.join(base, MARKER), json.dumps(dict(about, complete=True)))


def whole(base: str) -> bool:
    """Whether it was completed, and nothing of it is missing or changed. What was added counts for nothing."""
    if (read_json(os.path.join(base, MARKER)) or {}).get("complete") is not True:
        return False
    try:
        noted = json.loads(read(os.path.join(base, _LISTING), _LIMIT))
        for name, files in noted.items():
            folder = os.path.join(base, name)
            for file, (size, mtime_ns) in files.items():
                info = os.lstat(os.path.join(folder, file))
                if info.st_size != size or info.st_mtime_ns != mtime_ns:
                    return False
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _stamps(base: str) -> dict[str, dict[str, tuple[int, int]]]:
    """folder -> file -> size and time. Compiled code is left out: Python writes it anew when it likes."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for folder, names, files in os.walk(base):
        names[:] = [name for name in names if name != "__pycache__"]
        stamps = {}
        for file in files:
            if file not in (MARKER, _LISTING):
                info = os.lstat(os.path.join(folder, file))
                stamps[file] = (info.st_size, info.st_mtime_ns)
        found[os.path.relpath(folder, base)] = stamps
    return found
