"""How fast a pool works off its queue, learned, and what follows for those who would wait. PURE.

Only time in which somebody waits tells how fast the hosts are; at other times they do what they are asked for. So:
requests completed in that time / seconds of it, both fading with TAU_S. It is not known before LEAST_S and LEAST_DONE,
and forgotten after FORGET_S: then nothing is hopeless, and requests wait for hosts that are still to come.
"""

from __future__ import annotations

import math

TAU_S = 10.0
LEAST_S = 1.0
LEAST_DONE = 2.0
FORGET_S = 60.0
# Retry-After is the predicted wait, within these bounds (seconds).
SOONEST_S = 1.0
LATEST_S = 60.0
# Samples shorter than this are not worth the arithmetic (seconds).
_GRAIN_S = 0.05


class DrainRate:
    """Completions per second of a pool whose queue isn't empty. `done` is the pool's running count of them."""

    __slots__ = ("_at", "_busy_s", "_count", "_done", "_waiting")

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._count = 0.0
        self._at = -math.inf
        self._done = 0
        self._waiting = False

    def begin(self, now: float, done: int) -> None:
        """Somebody begins to wait, and nobody did before."""
        if now - self._at >= FORGET_S:
            self._busy_s = self._count = 0.0
        self._at = now
        self._done = done
        self._waiting = True

    def look(self, now: float, done: int, waiting: bool, serving: bool) -> None:
        """To be called while somebody waits, the more often the better, and when nobody does any more.

        `serving`: some host may take requests. Time without one says nothing about how fast hosts are.
        """
        if self._waiting and waiting and now - self._at < _GRAIN_S:
            return
        elapsed = now - self._at
        if self._waiting and serving and 0.0 < elapsed < FORGET_S:
            fade = math.exp(-elapsed / TAU_S)
            self._busy_s = self._busy_s * fade + elapsed
            self._count = self._count * fade + (done - self._done)
        self._at = now
        self._done = done
        self._waiting = waiting

    def resized(self, before: int, after: int) -> None:
        """The number of hosts that may take requests changed: expect as much more or less."""
        if before and after:
            self._count *= after / before
        else:
            self._busy_s = self._count = 0.0

    def per_s(self, now: float) -> float | None:
        """Requests per second; None: not known."""
        if self._busy_s < LEAST_S or self._count < LEAST_DONE or now - self._at >= FORGET_S:
            return None
        return self._count / self._busy_s


def retry_after_s(wait_s: float) -> float:
    """When somebody who would have to wait this long now should come back."""
    return min(max(wait_s, SOONEST_S), LATEST_S)
