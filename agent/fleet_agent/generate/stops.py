"""Where a text ends by the client's stop strings, found while it comes in pieces. PURE.

What may be the beginning of a stop string is kept back until it is known whether it is one; everything else is let
through at once. A stop string itself is never let through.
"""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """Texts at which to end, none of them empty."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._texts = tuple(texts)
        self._kept = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """What may be let through now, and whether the text is over: at the stop string that is whole first, however
        the text is cut into pieces."""
        if not self._texts:
            return piece, False
        text = self._kept + piece
        ends = [(at + len(each), at) for each in self._texts if (at := text.find(each)) >= 0]
        if ends:
            self._kept = ""
            return text[: min(ends)[1]], True
        keep = max(_beginning(text, each) for each in self._texts)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def rest(self) -> str:
        """What was kept back, once nothing more comes."""
        kept, self._kept = self._kept, ""
        return kept


def _beginning(text: str, stop: str) -> int:
    """How many of the last characters are the first ones of `stop`; not all of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
