"""FleetFile: notices that fleet.yaml changed, and keeps the last good one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fleet_controller.spec import FleetSpec, load


class FleetFile:
    """fleet.yaml at `path`. An editor may write it in two parts, so a change counts once it was seen twice the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: str | None = None
        self._seen: str | None = None

    def load(self) -> FleetSpec:
        """Read it now. Raises SpecError."""
        self._loaded = self._seen = self._checksum()
        return load(self.path)

    def changed(self) -> bool:
        """Whether it differs from what was loaded last, and has come to rest."""
        now = self._checksum()
        settled = now == self._seen
        self._seen = now
        return settled and now is not None and now != self._loaded

    def _checksum(self) -> str | None:
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError:
            return None
