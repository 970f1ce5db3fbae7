"""Facts: the folder that fleetctl uses here: its disk, what may be done in it, what is installed, what was left."""

from __future__ import annotations

import os
import stat
from typing import Any

from fleet_controller.hosts.keeper.files import read, read_json
from fleet_controller.hosts.keeper.leftovers import left_over
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import holder, listeners
from fleet_controller.hosts.keeper.release import proved
from fleet_controller.hosts.keeper.speech import Trouble


def disk(place: Place) -> dict[str, Any]:
    there = place.root
    while not os.path.exists(there):
        there = os.path.dirname(there)
    room = os.statvfs(there)
    info = os.stat(there)
    return {
        "path": place.root,
        "there": there,
        "exists": there == place.root,
        "folder": os.path.isdir(there),
        "free": room.f_frsize * room.f_bavail,
        "total": room.f_frsize * room.f_blocks,
        "inodes_free": room.f_favail,
        "inodes": room.f_files,
        "read_only": bool(room.f_flag & os.ST_RDONLY),
        "noexec": bool(room.f_flag & getattr(os, "ST_NOEXEC", 8)),
        "writable": os.access(there, os.W_OK | os.X_OK),
        "ours": info.st_uid == os.geteuid(),
        "mode": stat.S_IMODE(info.st_mode),
        "type": kind_of(there),
    }


def kind_of(path: str) -> str:
    """The type of the file system that `path` is on, as the kernel names it."""
    best, kind = "", ""
    for line in read("/proc/self/mountinfo").splitlines():
        words = line.split()
        try:
            at, after = words[4], words[words.index("-") + 1]
        except (IndexError, ValueError):
            continue
        inside = at == "/" or path == at or path.startswith(at + "/")
        if inside and len(at) >= len(best):
            best, kind = at, after
    return kind


def abandoned(place: Place) -> dict[str, Any]:
    paths = left_over(place)
    return {"paths": paths[:20], "count": len(paths)}


def releases(place: Place) -> dict[str, Any]:
    """Which releases are here, and whether each is whole; `wanted`: the one that was last started."""
    folder = place.path("releases")
    names = sorted(n for n in (os.listdir(folder) if os.path.isdir(folder) else []) if not n.startswith("."))
    run = read_json(place.run_file) or {}
    return {
        "ill": {name: ill(place, name) for name in names[:20]},
        "wanted": str(run.get("release", "")),
    }


def ill(place: Place, key: str) -> str:
    """Why this release can't be started; "" where it is whole, its weights included."""
    try:
        proved(place, key)
    except Trouble as trouble:
        return trouble.cause
    return ""


def port(place: Place, number: int) -> dict[str, Any]:
    """Who has the agent's port."""
    run, one = place.recorded()
    ours = one is not None
    if not number:
        number = int(run.get("port") or 0) if ours else 0
    sockets = listeners(number) if number else {}
    mine = ours and run.get("port") == number
    return {
        "port": number,
        "agent": ours,
        "taken": bool(sockets),
        "ours": mine,
        "holder": holder(sockets) if sockets and not mine else "",
    }
