"""What transfers and installations that were interrupted have left, and which of it nobody works on any more."""

from __future__ import annotations

import os
import time

from fleet_controller.hosts.keeper.files import Lock, remove
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble

# Younger ones may be under way, or be taken up again by the next `up`.
ABANDONED_S = 2 * 86400.0


def left_over(place: Place) -> list[str]:
    """What was interrupted long ago, and never taken up again."""
    found = []
    shared = [os.path.join(place.shared, name) for name in ("weights", "wheels")]
    for base in (place.path("releases"), place.path("environments"), *shared):
        for top, folders, files in os.walk(base):
            for name in (*folders, *files):
                path = os.path.join(top, name)
                half = name.endswith(".part") or (name.startswith(".") and name != ".lock" and top == base)
                if half and age_s(path) > ABANDONED_S:
                    found.append(path)
            if top != base:
                folders[:] = []
    return found


def age_s(path: str) -> float:
    """Seconds since it was changed; 0 where it is gone meanwhile."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0


def clear(place: Place) -> None:
    """Remove what is left over, and at once what is proven to be: of a machine that died amid an installation, say.

    A release is unpacked, and an environment is made, in a folder with a passing name by who has the lock beside it:
    where nobody has the lock, nobody is at work in such a folder (a pip whose keeper was killed works for nobody). What
    can't be removed now is another time.
    """
    for path in left_over(place):
        attempt(path)
    for base in (place.path("releases"), place.path("environments")):
        try:
            if not passing(base):
                continue
            with Lock(os.path.join(base, ".lock"), 0):
                for path in passing(base):  # what was one before may have its final name by now
                    attempt(path)
        except (Trouble, OSError):
            continue  # somebody is at work there, or nothing may be written


def passing(base: str) -> list[str]:
    """The folders in `base` that have no final name yet."""
    names = os.listdir(base) if os.path.isdir(base) else []
    paths = [os.path.join(base, name) for name in names if name.startswith(".") or name.endswith(".part")]
    return [path for path in paths if os.path.isdir(path)]


def attempt(path: str) -> None:
    try:
        remove(path)
    except OSError:
        pass
