"""What an engine writes, as lines that do no harm in a log: cut, counted, and the last ones kept. PURE."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

LONGEST = 2000
_BURST = 200.0
_PER_S = 50.0
_KEPT = 20
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LAST_CHARACTERS = 600


class Words:
    """Feed it what was read; it gives back the lines for the log, at most 50 a second after the first 200."""

    def __init__(self) -> None:
        self._partial = b""
        self._cutting = False  # the rest of a line that was too long is thrown away
        self._allowed = _BURST
        self._at: float | None = None
        self._left_out = 0
        self._last: deque[str] = deque(maxlen=_KEPT)

    def feed(self, data: bytes, now: float) -> list[str]:
        """`now` in seconds, of any clock that doesn't go back."""
        if self._at is not None:
            self._allowed = min(_BURST, self._allowed + (now - self._at) * _PER_S)
        self._at = now
        shown = []
        for line in self._lines(data):
            self._last.append(line)
            if self._allowed < 1.0:
                self._left_out += 1
                continue
            self._allowed -= 1.0
            if self._left_out:
                shown.append(f"({self._left_out} lines left out: it writes more than {_PER_S:.0f} a second)")
                self._left_out = 0
            shown.append(line)
        return shown

    def last(self) -> str:
        """Its last words in one line, the newest at the end; empty if it never said anything."""
        partial = _clean(self._partial)
        lines = [*self._last, partial] if partial else list(self._last)
        return " / ".join(lines)[-_LAST_CHARACTERS:]

    def ended(self) -> str | None:
        """The process is gone: what it began to write, if anything."""
        partial, self._partial = _clean(self._partial), b""
        if partial:
            self._last.append(partial)
        return partial or None

    def _lines(self, data: bytes) -> Iterator[str]:
        # A carriage return alone ends a line too: progress bars.
        *whole, rest = re.split(rb"[\r\n]+", self._partial + data)
        for number, line in enumerate(whole):
            if number == 0 and self._cutting:
                self._cutting = False
                continue
            text = _clean(line)
            if text:
                yield text
        if len(rest) > LONGEST:
            if not self._cutting:
                self._cutting = True
                yield _clean(rest)
            rest = rest[:1]
        self._partial = rest


def _clean(line: bytes) -> str:
    text = _COLOURS.sub("", line[: 2 * LONGEST].decode("utf-8", "replace"))
    text = _CONTROLS.sub(" ", text).strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
