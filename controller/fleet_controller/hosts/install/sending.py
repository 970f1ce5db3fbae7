"""How fast files are sent, and how far they are: a bucket of bytes that hosts share, and a line for the operator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# How much may be sent at once after a pause.
_BURST_S = 0.25
_TELL_S = 1.0


class Pace:
    """At most `bytes_per_s` go through all calls together. Callable from any thread."""

    def __init__(
        self,
        bytes_per_s: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = 0.0

    def __call__(self, size: int) -> None:
        """Wait until `size` more bytes may go."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - _BURST_S) + size / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)


class Paces:
    """One Pace for each limit: hosts with the same limit share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, Pace] = {}

    def of(self, bytes_per_s: int | None) -> Pace | None:
        if bytes_per_s is None:
            return None
        with self._lock:
            return self._known.setdefault(bytes_per_s, Pace(bytes_per_s))


class Meter:
    """Tells about once a second how far a host's files are: `total` bytes in all, file after file."""

    def __init__(
        self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._say = say
        self._clock = clock
        self._began = self._told = clock()
        self._before = 0
        self._what = ""

    def begin(self, what: str) -> None:
        """The next file is `what`."""
        self._what = what
        self._say(f"sending {what} ({in_words(self._total - self._before)} to go)")
        self._told = self._clock()

    def end(self, size: int) -> None:
        self._before += size

    def __call__(self, there: int, _size: int) -> None:
        now = self._clock()
        if now - self._told < _TELL_S:
            return
        self._told = now
        done = self._before + there
        rate = done / max(now - self._began, 1e-3)
        share = 100 * done // max(self._total, 1)
        left = (self._total - done) / max(rate, 1.0)
        self._say(
            f"sending {self._what}: {share} % of {in_words(self._total)}, {in_words(int(rate))}/s, {left:.0f} s to go"
        )


def in_words(size: int) -> str:
    """4.2 GB, 13.0 MB, 512 kB."""
    for step, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
