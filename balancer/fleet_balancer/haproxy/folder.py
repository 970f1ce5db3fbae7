"""The folder that HAProxy runs in: its configuration, maps, certificate and sockets. Only we may read it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fleet_balancer.haproxy.maps import file_text

_PREFIX = "fleet-balancer-"


class Folder:
    """Made by open(), removed by remove(): there may be tokens in it."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def open(self) -> None:
        """Raises OSError."""
        _sweep()
        self._path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        shutil.copy(Path(__file__).with_name("waiting.lua"), self._path)

    @property
    def path(self) -> Path:
        if self._path is None:
            raise AssertionError("not started")
        return self._path

    def put(self, file: str, text: str) -> None:
        """Write a file that only we may read: it may hold tokens. Raises OSError."""
        path = self.path / file
        part = path.with_name(path.name + ".part")
        part.touch(mode=0o600)
        part.write_text(text, encoding="utf-8")
        part.replace(path)

    def put_map(self, file: str, entries: Mapping[str, str]) -> None:
        """Raises OSError."""
        self.put(file, file_text(entries))

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of balancers that were killed: there may be tokens in them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            if pid.isdecimal() and folder.stat().st_uid == os.geteuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
