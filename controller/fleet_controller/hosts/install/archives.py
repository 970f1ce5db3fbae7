"""Packed releases on the operator's machine, once for all hosts; those that served are kept, to go back to them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.shelf import hashed

# Another fleetctl may be about to send one that it has just packed.
_YOUNG_S = 3600.0


class Archives:
    """Packed releases in `folder`. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._packed: dict[str, tuple[Path, str]] = {}

    def get(self, release: Release) -> tuple[Path, str]:
        """The packed release and its sha256. Raises HostFailure."""
        with self._lock:
            packed = self._packed.get(release.key)
            if packed is None or not packed[0].exists():
                # What an earlier run of this program packed is not taken on trust.
                packed = release.archive(self._folder) if release.packed is None else _kept(release.packed)
                self._packed[release.key] = packed
                self._sweep(packed[0])
            return packed

    def _sweep(self, fresh: Path) -> None:
        for old in self._folder.glob("*.tar"):
            kept = old.with_name(f"{old.stem}.kept.json").exists()
            if old != fresh and not kept and time.time() - old.stat().st_mtime > _YOUNG_S:
                old.unlink(missing_ok=True)


def _kept(packed: tuple[Path, str]) -> tuple[Path, str]:
    """One that served before: its files may be gone by now, so it can't be packed anew."""
    path, digest = packed
    try:
        if hashed(path) == digest:
            return packed
        cause = f"the release that was kept in {path} is damaged (its sha256 differs)"
    except OSError as error:
        cause = f"the release that was kept in {path} cannot be read: {error.strerror or error}"
    raise HostFailure(
        "this machine", "release", cause, "Go on with what fleet.yaml asks for: fleetctl rollback --clear"
    )
