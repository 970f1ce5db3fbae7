"""The front door's certificate as HAProxy wants it: chain and key in one file."""

from __future__ import annotations

from pathlib import Path

from fleet_balancer.access.tls import ServerTls
from fleet_wire.balancer import TlsFiles


class Certificate:
    """Raises TlsError where the files can't be used, in the words of the built-in engine."""

    def __init__(self, files: TlsFiles) -> None:
        ServerTls(files)
        self._files = files
        self._stamp = self._look()

    def bundle(self) -> str:
        """Raises OSError."""
        chain, key = (Path(p).read_text(encoding="ascii") for p in (self._files.certificate, self._files.key))
        return f"{chain.rstrip()}\n{key.rstrip()}\n"

    def changed(self) -> bool:
        """Whether the files are others than at the last call."""
        before, self._stamp = self._stamp, self._look()
        return self._stamp is not None and self._stamp != before

    def _look(self) -> tuple[tuple[int, int, int], ...] | None:
        try:
            stats = [Path(p).stat() for p in (self._files.certificate, self._files.key)]
        except OSError:
            return None
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats)
