"""Of what a keeper's stream carries: the part that is a command's own output. PURE."""

from __future__ import annotations

from collections.abc import Callable


class Between:
    """Hands on what lies between the keeper's `begins` and `ends`; the rest is a login's noise, or ours."""

    def __init__(self, nonce: bytes, hear: Callable[[bytes], None]) -> None:
        self._begin = b"\n" + nonce + b" begins\n"
        # No line of its own: what a command wrote last is told before it is known whether more comes.
        self._end = nonce + b" ends"
        self._hear = hear
        self._rest = b""
        self._state = 0

    def add(self, data: bytes) -> None:
        self._rest += data
        if self._state == 0:
            _, begin, behind = self._rest.partition(self._begin)
            if not begin:
                self._rest = self._rest[-len(self._begin) :]
                return
            self._state, self._rest = 1, behind
        if self._state == 1:
            own, end, _ = self._rest.partition(self._end)
            if end:
                self._state, self._rest = 2, b""
            else:
                held = _held(own, self._end)
                own, self._rest = own[: len(own) - held], own[len(own) - held :]
            if own:
                self._hear(own)
        else:
            self._rest = b""

    def close(self) -> None:
        """Nothing more comes: what looked like the beginning of a last word was none."""
        if self._state == 1 and self._rest:
            self._hear(self._rest)
        self._rest = b""


def _held(data: bytes, end: bytes) -> int:
    """How many of the last bytes of `data` may be the beginning of `end`."""
    for length in range(min(len(end) - 1, len(data)), 0, -1):
        if data.endswith(end[:length]):
            return length
    return 0
