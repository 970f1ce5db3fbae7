"""A process by name, so that an operator can act: pid, command, user, and what it holds."""

from __future__ import annotations

import os
import pwd

from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.processes import Process, listeners

# Only one who was given the agent's output writes there: operators read it.
ACCESS_MODE = 0o3


def described(one: Process, more: str = "") -> str:
    """ "pid 7 (python train.py) of alice, holds /dev/nvidia0": what can be seen of it as this user."""
    holds = [more] if more else []
    holds += sorted({path for path in open_files(one.pid) if path.startswith(("/dev/nvidia", "/dev/shm/"))})[
        :6
    ]
    return f"{one.name()} of {user(one.pid)}" + (", holds " + ", ".join(holds) if holds else "")


def user(pid: int) -> str:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        return pwd.getpwuid(uid).pw_name
    except OSError:
        return "nobody (it is gone)"
    except KeyError:
        return f"uid {uid}"


def open_files(pid: int) -> list[str]:
    """What it has open, its working folder and its program; empty where this user may not look."""
    found = []
    for link in ("cwd", "exe"):
        found += _target(f"/proc/{pid}/{link}")
    try:
        handles = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for handle in handles:
        found += _target(f"/proc/{pid}/fd/{handle}")
    return found


def _target(path: str) -> list[str]:
    try:
        return [os.readlink(path)]
    except OSError:
        return []


def writes_our_log(one: Process, place: Place) -> bool:
    """Whether it holds the agent's log open for writing: then an agent of ours started it, whatever it looks like."""
    folder = f"/proc/{one.pid}/fd"
    logs = (place.log, place.log + ".1")
    try:
        for handle in os.listdir(folder):
            if os.readlink(f"{folder}/{handle}") in logs:
                with open(f"/proc/{one.pid}/fdinfo/{handle}") as file:
                    flags = next((line.split()[1] for line in file if line.startswith("flags:")), "0")
                if int(flags, 8) & ACCESS_MODE:
                    return True
    except OSError:
        pass  # gone meanwhile, or another user's
    return False


def uses_our_files(one: Process, place: Place) -> str:
    """One of the release's or the agent's files that it has open; "" for none that this user can see."""
    below = place.root + "/"
    return next((path for path in open_files(one.pid) if (path + "/").startswith(below)), "")


def holder_of(port: int, everyone: list[Process]) -> Process | None:
    """Who listens there; None where nobody does, or it is a process of another user."""
    wanted = {f"socket:[{inode}]" for inode in listeners(port)}
    return next((one for one in everyone if wanted & set(open_files(one.pid))), None) if wanted else None
