"""Packed releases on the operator's machine, once for all hosts; the last ones are kept, to go back to them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from fleet_controller.hosts.install.release import Release

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
                packed = self._packed[release.key] = release.archive(self._folder)
                self._sweep(packed[0])
            return packed

    def _sweep(self, fresh: Path) -> None:
        for old in self._folder.glob("*.tar"):
            if old != fresh and time.time() - old.stat().st_mtime > _YOUNG_S:
                old.unlink(missing_ok=True)
