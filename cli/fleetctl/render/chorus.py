"""Lines of many hosts on one screen: each behind its host's name, in the host's own colour where there are colours."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable
from typing import TextIO

from fleetctl.render.terminal import interactive
from fleetctl.render.text import clean

# Foregrounds that can be read on black and on white alike, and tell themselves from each other (256-colour palette).
COLOURS = (32, 166, 34, 127, 37, 160, 99, 136, 205, 64, 69, 172)


def colour_of(name: str) -> int:
    """A host's colour: the same in every command, whatever other hosts are there."""
    return COLOURS[zlib.crc32(name.encode()) % len(COLOURS)]


class Chorus:
    """Writes lines of hosts to stdout and stderr. Not safe for threads: one voice at a time."""

    def __init__(self, names: Iterable[str], *, prefix: bool = True) -> None:
        self._width = max((len(name) for name in names), default=0)
        self._prefix = prefix

    def out(self, host: str, text: str) -> None:
        self._write(sys.stdout, host, text)

    def err(self, host: str, text: str) -> None:
        self._write(sys.stderr, host, text)

    def _write(self, stream: TextIO, host: str, text: str) -> None:
        front = self._front(stream, host) if self._prefix else ""
        stream.write(f"{front}{clean(text)}\n")
        stream.flush()

    def _front(self, stream: TextIO, host: str) -> str:
        name = f"{host:<{self._width}} |"
        if not coloured(stream):
            return f"{name} "
        return f"\x1b[38;5;{colour_of(host)}m{name}\x1b[0m "


def coloured(stream: TextIO) -> bool:
    return interactive(stream) and not os.environ.get("NO_COLOR")
