"""What goes into a support bundle, each piece by itself: one that hangs or breaks costs no other piece anything."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fleet_controller.door.admin import FrontDoor, FrontDoorError
from fleet_controller.statefolder import StateFolder
from fleetctl.support.pack import Pack

# A command that looks is ended after so long: the store may be locked, an agent may hang.
COMMAND_S = 45.0
LOG_BYTES = 2 * 1024 * 1024
EVENTS = 2000
AT_ONCE = 3
# Of files beside fleet.yaml and in the state folder, what is more is left out.
FILE_BYTES = 1024 * 1024


def versions() -> dict[str, Any]:
    """Of fleetctl, Python, the libraries that it needs, this machine, and the programs that it calls."""
    return {
        "fleetctl": _version("fleetctl"),
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "os": _os_release(),
        "cpus": os.cpu_count(),
        "openssl": ssl.OPENSSL_VERSION,
        "libraries": {name: _version(name) for name in _libraries()},
        "programs": {
            name: shutil.which(name) for name in ("ssh", "virsh", "ipmitool", "haproxy", "systemctl")
        },
        "locale": {name: os.environ.get(name) for name in ("LANG", "LC_ALL", "TZ", "TERM")},
    }


def _libraries() -> list[str]:
    try:
        needed = importlib.metadata.requires("fleetctl") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = {line.split(";")[0].strip() for line in needed}
    return sorted({name.split("[")[0].rstrip("<>=!~ 0123456789.,") for name in names})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def commands(pack: Pack, file: Path, pools: Sequence[str], hosts: Sequence[str]) -> None:
    """What fleetctl's own commands that only look say now, each a process of its own."""
    doctor = ["doctor", "-o", "json", *(word for host in hosts for word in ("--host", host))]
    wanted: dict[str, list[str]] = {
        "validate.txt": ["validate"],
        "status.json": ["status", "-o", "json"],
        "hosts.json": ["hosts", "-o", "json"],
        "events.jsonl": ["events", "-n", str(EVENTS), "-o", "json"],
        "plan.json": ["plan", "-o", "json"],
        "state.json": ["state", "show", "-o", "json"],
        "doctor.json": doctor,
    }
    for pool in pools:
        wanted[f"explain/{pool}.json"] = ["explain", pool, "-o", "json"]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        said = threads.map(lambda words: _said(file, words), wanted.values())
        for name, (text, why) in zip(wanted, said, strict=True):
            if text:
                pack.add(name, text)
            if why:
                pack.lack(f"{name} (all of it)" if text else name, why)


def _said(file: Path, words: Sequence[str]) -> tuple[str, str]:
    """What a command printed, and what was wrong; "" is nothing."""
    argv = [sys.executable, "-m", "fleetctl", "-f", str(file), *words]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return "", f"not done after {COMMAND_S:.0f} s"
    except OSError as error:
        return "", f"could not be started: {error.strerror}"
    text, problem = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()
    # The doctor's exit code says what it found, not that it failed.
    failed = done.returncode != 0 and not (words[0] == "doctor" and text)
    return text, f"exit status {done.returncode}: {problem}" if failed else ""


def own_files(pack: Pack, file: Path, folder: Path) -> None:
    """fleet.yaml, the daemons' logs and configuration. The balancer's state has API keys' hashes: it is left out."""
    _text(pack, "fleet.yaml", file)
    for name in ("controller", "balancer"):
        for suffix in ("log", "log.1"):
            path = folder / f"{name}.{suffix}"
            if path.exists():
                _text(pack, f"logs/{path.name}", path, LOG_BYTES)
            elif suffix == "log":
                pack.lack(f"logs/{path.name}", f"there is none at {path}")
        for path in (folder / f"{name}.json", folder / f"{name}.pid", folder / f"{name}.config.json"):
            if path.exists():
                _text(pack, f"state/{path.name}", path)
    pack.add_json("state/files.json", _listing(folder))


def _text(pack: Pack, name: str, path: Path, most: int = FILE_BYTES) -> None:
    """The end of a file."""
    try:
        with path.open("rb") as source:
            source.seek(max(0, source.seek(0, os.SEEK_END) - most))
            pack.add(name, source.read(most).decode("utf-8", "replace"))
    except OSError as error:
        pack.lack(name, f"{path}: {error.strerror}")


def _listing(folder: Path) -> list[dict[str, Any]]:
    """Names, sizes and modes of what lies in the state folder; nothing of what is in it."""
    listed = []
    for path in sorted(folder.glob("*"))[:500]:
        try:
            info = path.lstat()
        except OSError:
            continue
        listed.append(
            {"name": path.name, "bytes": info.st_size, "mode": oct(info.st_mode), "changed": info.st_mtime}
        )
    return listed


def front_door(pack: Pack, folder: StateFolder) -> None:
    """What the balancer says of itself. Its backends are not asked for: the agents' tokens stand there."""
    names = ("balancer/status.json", "balancer/metrics.txt")
    try:
        admin = str(json.loads((folder.path / "balancer.json").read_text())["admin"])
    except (OSError, ValueError, KeyError, TypeError):
        for name in names:
            pack.lack(name, "no balancer runs here")
        return
    door = FrontDoor(lambda: admin, folder.token("balancer") if folder.has_token("balancer") else "")
    try:
        pack.add_json(names[0], door.status().model_dump(mode="json"))
        pack.add(names[1], door.metrics())
    except FrontDoorError as error:
        for name in names:
            if name not in pack.files:
                pack.lack(name, str(error))
