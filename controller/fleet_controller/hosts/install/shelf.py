"""Files kept on this machine by their content: wheels and weights, each in a folder named by its sha256.

What lies here is not taken on trust: it is hashed before it is used first in a process, and one that is damaged (a
disk that was full, a hand that was clumsy) is taken off and brought anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure

# Unused for so long, a file is brought anew if it is ever wanted again.
KEEP_S = 60 * 86400.0
_CHUNK = 1 << 20


class Shelf:
    """Files in `folder`; safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int]] = {}

    def find(self, sha256: str) -> Path | None:
        """The file with this content, hashed once per process; None where there is none, or a damaged one."""
        try:
            [path] = [one for one in (self.folder / sha256).iterdir() if not one.name.startswith(".")]
            info = path.stat()
        except (OSError, ValueError):
            return None
        mark = (info.st_size, info.st_mtime_ns)
        with self._lock:
            if self._known.get(sha256) == mark:
                return path
        try:
            if hashed(path) != sha256:
                self.drop(sha256)
                return None
            os.utime(path.parent)
        except OSError:
            return None
        with self._lock:
            self._known[sha256] = mark
        return path

    def take(self, path: Path, sha256: str, name: str) -> Path:
        """Move `path`, which has this content, in; where it lies then. Raises HostFailure when the disk is full."""
        place = self.folder / sha256
        target = place / name
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in place.iterdir():
                if old != target:
                    old.unlink()
            path.chmod(0o600)
            shutil.move(path, target)
        except OSError as error:
            raise unwritten(self.folder, error) from error
        return target

    def drop(self, sha256: str) -> None:
        with self._lock:
            self._known.pop(sha256, None)
        shutil.rmtree(self.folder / sha256, ignore_errors=True)

    def sweep(self, now: float) -> None:
        """Take off what nobody used for long."""
        with suppress(OSError):
            for place in self.folder.iterdir():
                if place.is_dir() and now - place.stat().st_mtime > KEEP_S:
                    self.drop(place.name)


@contextmanager
def alone(path: Path, waiting: object = None) -> Iterator[None]:
    """Hold the lock file `path`, over threads and processes; `waiting()` is called every few seconds until then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as file:
        told = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if callable(waiting) and time.monotonic() - told > 5:
                    told = time.monotonic()
                    waiting()
                time.sleep(0.1)
        yield


def hashed(path: Path) -> str:
    """sha256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unwritten(folder: Path, error: OSError) -> HostFailure:
    """What is brought to this machine first could not be written here."""
    return HostFailure(
        "this machine", "disk", f"{folder} cannot be written: {error.strerror or error}", "Free space there"
    )
