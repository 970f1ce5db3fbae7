"""What another autoscaler sees of the pool, and its memory of it.

Counters only grow; each peer makes its own rates and means of them, over the window that its real counterpart uses, at
the moments at which that one looks (`period_s`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Look:
    """`arrived` requests so far; `stayed_s` the request-seconds that were spent in the pool so far, waiting or in work
    (its growth over a time is the mean concurrency). `utilization` is the mean busy share over 30 s of the
    `reporting` hosts, and `p95_ms` that of the answers since the look before: both only for a peer that asks for them
    (`sees`)."""

    ready: int
    starting: int = 0
    arrived: int = 0
    stayed_s: float = 0.0
    utilization: float | None = None
    reporting: int = 0
    p95_ms: float | None = None


class Peer(Protocol):
    """`period_s`: how often it looks. `sees`: which of the costly values it asks for. Returns the number wanted."""

    period_s: float
    sees: frozenset[str]

    def __call__(self, look: Look, now: float) -> int: ...


class Growth:
    """A counter's rate over the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._kept: deque[tuple[float, float]] = deque()

    def add(self, now: float, total: float) -> float | None:
        """The rate from `seconds` ago (or the first look, while that is younger) to now; None at the first look."""
        kept = self._kept
        kept.append((now, total))
        while len(kept) > 2 and kept[1][0] <= now - self.seconds:
            kept.popleft()
        (first, before), (last, after) = kept[0], kept[-1]
        return (after - before) / (last - first) if last > first else None


class Largest:
    """The largest of the values of the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._kept: deque[tuple[float, int]] = deque()

    def add(self, now: float, value: int) -> int:
        self._kept.append((now, value))
        while self._kept[0][0] <= now - self.seconds:
            self._kept.popleft()
        return max(value for _, value in self._kept)
