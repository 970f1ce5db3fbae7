"""The releases that served before, packed, so that one can go back to them; and which pools were sent back.

A release is worth going back to once an agent was ready with it: what never served is nobody's way out. A pool that was
sent back stays there while fleet.yaml (its models' folders and this fleetctl included) asks for the very release that
it was sent back from; as soon as it asks for anything else, that is what runs.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_controller.hosts.install.archives import Archives
from fleet_controller.hosts.install.release import Release, ReleaseFile
from fleet_controller.hosts.install.shelf import unwritten
from fleet_controller.hosts.install.weights import WeightsFile
from fleet_controller.spec import ModelSpec

SCHEMA = "fleetctl/releases/v1"
# Of each pool, beside the one that is in force.
KEPT = 5
_BOOK = "served.json"
_SENT_BACK = "rollback.json"


class NothingEarlier(Exception):
    """There is no release to go back to; the message says why."""


@dataclass(frozen=True)
class Pin:
    """A pool that was sent back to `key` while fleet.yaml asked for `instead_of`."""

    key: str
    instead_of: str
    at: float


@dataclass(frozen=True)
class Earlier:
    """A release that served, with the models as they were then."""

    release: Release
    models: tuple[ModelSpec, ...]


class EarlierReleases:
    """In the folder of packed releases. Safe for threads; the controller writes what served, the command line pins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    # what served

    def served(self, pool: str) -> list[str]:
        """Keys of the releases with which the pool had a ready agent, the last one last."""
        found = self._read(_BOOK).get("pools", {}).get(pool, [])
        return [str(key) for key in found] if isinstance(found, list) else []

    def note(self, pool: str, release: Release, models: Sequence[ModelSpec], archives: Archives) -> None:
        """`release` serves now. Raises HostFailure where it can't be kept."""
        pin = self.pins().get(pool)
        if pin is not None and release.key not in (pin.key, pin.instead_of):
            self.pin({pool: None})  # it was left for something else: that it was sent back is over
        with self._lock:
            keys = self.served(pool)
            if keys and keys[-1] == release.key and self._page(release.key).exists():
                return
            if not self._page(release.key).exists():
                path, digest = archives.get(release)
                self._write(self._page(release.key).name, _written(release, models, path.name, digest))
            book = self._read(_BOOK).get("pools", {})
            book[pool] = [*(key for key in keys if key != release.key), release.key][-(KEPT + 1) :]
            self._write(_BOOK, {"schema": SCHEMA, "pools": book})
            self._sweep(book)

    def read(self, key: str) -> Earlier:
        """Raises NothingEarlier where it is not kept, or not whole."""
        try:
            value = json.loads(self._page(key).read_text("utf-8"))
            return _understood(value, self._folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NothingEarlier(f"release {key} is not kept here any more ({error})") from error

    # who was sent back

    def pins(self) -> dict[str, Pin]:
        """The pools that were sent back."""
        found = {}
        for pool, one in self._read(_SENT_BACK).get("pools", {}).items():
            with suppress(KeyError, TypeError, ValueError):
                found[str(pool)] = Pin(str(one["key"]), str(one["instead_of"]), float(one["at"]))
        return found

    def pin(self, pools: Mapping[str, Pin | None]) -> None:
        """Send pools back, or (None) let them follow fleet.yaml again. Raises HostFailure when the disk is full."""
        with self._lock:
            pins = {**self.pins()}
            for pool, one in pools.items():
                pins.pop(pool, None)
                if one is not None:
                    pins[pool] = one
            text = {
                p: {"key": one.key, "instead_of": one.instead_of, "at": one.at} for p, one in pins.items()
            }
            self._write(_SENT_BACK, {"schema": SCHEMA, "pools": text})

    def mark(self) -> tuple[int, int]:
        """Changes whenever somebody sends a pool back or on."""
        try:
            info = (self._folder / _SENT_BACK).stat()
        except OSError:
            return 0, 0
        return info.st_ino, info.st_mtime_ns

    def in_force(self, pool: str, wanted: Release) -> Earlier | None:
        """What `pool` runs instead of `wanted`; None: what fleet.yaml asks for. Raises NothingEarlier."""
        pin = self.pins().get(pool)
        if pin is None or pin.instead_of != wanted.key:
            return None
        return self.read(pin.key)

    def previous(self, pool: str, wanted: Release) -> str:
        """The last release that served before the `wanted` one did. Raises NothingEarlier."""
        others = [key for key in self.served(pool) if key != wanted.key]
        if not others:
            raise NothingEarlier(f"pool {pool} has served with no other release than {wanted.key}")
        return others[-1]

    # files

    def _page(self, key: str) -> Path:
        if not key.isalnum():
            raise NothingEarlier(f"{key!r} is no release")
        return self._folder / f"{key}.kept.json"

    def _read(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self._folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _write(self, name: str, value: object) -> None:
        fresh = self._folder / f".{name}.{os.getpid()}.new"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(json.dumps(value, indent=1), "utf-8")
            fresh.replace(self._folder / name)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise unwritten(self._folder, error) from error

    def _sweep(self, book: Mapping[str, list[str]]) -> None:
        wanted = {key for keys in book.values() for key in keys} | {pin.key for pin in self.pins().values()}
        for page in self._folder.glob("*.kept.json"):
            key = page.name.removesuffix(".kept.json")
            if key not in wanted:
                page.unlink(missing_ok=True)
                (self._folder / f"{key}.tar").unlink(missing_ok=True)


def chosen(
    earlier: EarlierReleases,
    pool: str,
    wanted: Release,
    models: Sequence[ModelSpec],
    say: Callable[[str], None],
) -> Earlier:
    """What the pool is to run. One that was sent back to what is not here any more follows fleet.yaml, and says so."""
    try:
        back = earlier.in_force(pool, wanted)
    except NothingEarlier as trouble:
        say(f"pool {pool} was sent back, but {trouble}; it follows fleet.yaml")
        back = None
    return back or Earlier(wanted, tuple(models))


def _written(release: Release, models: Sequence[ModelSpec], packed: str, digest: str) -> dict[str, Any]:
    texts = {}
    for file in release.files:
        if file.path in release.requirement_files:
            data = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
            texts[file.path] = base64.b64encode(data).decode()
    return {
        "schema": SCHEMA,
        "key": release.key,
        "packed": packed,
        "sha256": digest,
        "files": [[f.path, f.size, f.sha256, f.executable] for f in release.files],
        "requirements": release.requirements,
        "requirement_files": texts,
        "weights": [[w.path, w.sha256, str(w.file or ""), w.url, w.mount] for w in release.weights],
        "models": [model.model_dump(mode="json", by_alias=True) for model in models],
    }


def _understood(value: dict[str, Any], folder: Path) -> Earlier:
    """Raises ValueError, KeyError or TypeError for anything that `_written` did not make."""
    packed = folder / str(value["packed"])
    if not packed.is_file():
        raise ValueError(f"{packed} is gone")
    texts = {path: base64.b64decode(text) for path, text in value["requirement_files"].items()}
    files = tuple(
        ReleaseFile(str(path), texts.get(path, packed), int(size), str(sha256), bool(executable))
        for path, size, sha256, executable in value["files"]
    )
    weights = tuple(
        WeightsFile(str(path), str(sha256), Path(file) if file else None, url, mount)
        for path, sha256, file, url, mount in value["weights"]
    )
    release = Release(
        str(value["key"]),
        files,
        tuple(value["requirements"]),
        tuple(texts),
        weights,
        (packed, str(value["sha256"])),
    )
    return Earlier(release, tuple(ModelSpec.model_validate(model) for model in value["models"]))
