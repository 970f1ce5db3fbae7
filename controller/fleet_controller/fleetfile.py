"""FleetFile: notices that fleet.yaml changed, and keeps the last good one, over a restart too.

A copy of the one in force lies in the state folder. A controller that is started while fleet.yaml is broken, or can't
be followed, goes on with that copy and says so until the file is mended.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fleet_controller.spec import FleetSpec, SpecError, load

IN_FORCE = "the last good fleet.yaml stays in force:"


class FleetFile:
    """fleet.yaml at `path`. An editor may write it in two parts, so a change counts once it was seen twice the same.

    `problem` says why the present file is not in force; "": it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._kept: Path | None = None
        self._read: bytes | None = None
        self._loaded: str | None = None
        self._seen: str | None = None

    def load(self) -> FleetSpec:
        """Read it now. Raises SpecError."""
        content = self._content()
        self._loaded = self._seen = None if content is None else checksum(content)
        spec = load(self.path, content)
        self._read = content
        return spec

    @property
    def checksum(self) -> str:
        """SHA-256 of what was loaded last; "": nothing was."""
        return self._loaded or ""

    def changed(self) -> bool:
        """Whether it differs from what was loaded last, and has come to rest."""
        content = self._content()
        now = None if content is None else checksum(content)
        settled = now == self._seen
        self._seen = now
        return settled and now is not None and now != self._loaded

    def keep_in(self, folder: Path) -> None:
        """Where the copy of the one in force lies: the state folder."""
        self._kept = kept(self.path, folder)

    def accepted(self) -> None:
        """What was loaded last is in force now: keep a copy. A disk that is full keeps the one before."""
        self.problem = ""
        if self._kept is None or self._read is None:
            return
        fresh = self._kept.with_name(f".{self._kept.name}.new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(self._read)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._kept)
        except OSError:
            fresh.unlink(missing_ok=True)

    def refused(self, problem: object) -> str:
        """The present file is not followed; the sentence that says so."""
        self.problem = f"{IN_FORCE} {problem}"
        return self.problem

    def _content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:
            return None


def kept(path: Path, folder: Path) -> Path:
    """Where the last good content of the fleet file `path` lies in the state folder `folder`."""
    return folder / f"last-good-{path.name}"


def last_good(path: Path, folder: Path | None = None) -> FleetSpec | None:
    """What the fleet file at `path` said when it was last in force. None: nobody kept it.

    `folder` is the state folder; without it the newest of those beside the file.
    """
    folders = [folder] if folder is not None else list((path.parent / ".fleetctl").glob("*"))
    copies = [copy for f in folders if (copy := kept(path, f)).is_file()]
    for copy in sorted(copies, key=lambda c: c.stat().st_mtime, reverse=True):
        try:
            return load(path, copy.read_bytes())
        except (SpecError, OSError):
            continue
    return None


def checksum(content: bytes) -> str:
    """Names one version of a fleet file."""
    return hashlib.sha256(content).hexdigest()
