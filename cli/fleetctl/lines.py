"""Bytes that come in pieces, as lines of text. PURE."""

from __future__ import annotations

# A line that is longer is shown in pieces, so that a program that writes no line ends costs no memory.
LONGEST = 64 * 1024


class Lines:
    """Cuts a stream into lines; what a carriage return wrote over is left out, as a terminal would."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> list[str]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            whole.append(self._rest)
            self._rest = b""
        return [_text(line) for line in whole]

    def end(self) -> list[str]:
        """The last line, where it has no end."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
