"""Files that are whole or not there, folders of ours, one keeper at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from typing import Any

from fleet_controller.hosts.keeper.speech import Trouble


def read(path: str, limit: int = 1 << 20) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def read_json(path: str, limit: int = 1 << 20) -> dict[str, Any] | None:
    try:
        value = json.loads(read(path, limit))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Whole or not at all, and on the disk."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        remove(part)
        raise


def remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def folder(*parts: str) -> str:
    """A folder of ours, private to this user; made when it is missing."""
    path = os.path.join(*parts)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Trouble(
            "permission", f"{path} is not a folder", "Move it away, or set install.directory"
        ) from None
    info = os.stat(path)
    if info.st_uid == os.geteuid() and stat.S_IMODE(info.st_mode) & 0o077:
        os.chmod(path, 0o700)
    return path


def sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def free_bytes(path: str) -> int:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def no_room(path: str, why: str) -> Trouble:
    step = f"Free space there (see `df -h {path}`), or set install.directory to a bigger disk, then run the same again"
    return Trouble("disk", f"no room in {path}: {why}; nothing was left half-written", step)


class Lock:
    """One keeper at a time changes a place. Raises Trouble when another holds it for longer than `wait_s`."""

    def __init__(self, path: str, wait_s: float) -> None:
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= until:
                    os.close(self.handle)
                    raise Trouble(
                        "busy",
                        f"another fleetctl is at work on this host and did not finish within {wait_s:.0f} s",
                        "Let it finish, then run the same again",
                    ) from None
                time.sleep(0.05)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)
