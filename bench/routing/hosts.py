"""Simulated hosts: how one kind of server works off what it has. Seconds; a size is its work at speed 1."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

# A batch's own cost beside its requests', and how many requests it takes at most.
BATCH_S = 0.010
BATCH = 16


class Host(Protocol):
    """`ends`: when finish() is to be called next."""

    ends: float

    def arrive(self, now: float, request: int, size: float) -> None: ...
    def finish(self, now: float) -> list[int]: ...


class Serial:
    """One request at a time, first come first served."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.queue: deque[tuple[int, float]] = deque()
        self.running: list[int] = []
        self.ends = float("inf")

    def arrive(self, now: float, request: int, size: float) -> None:
        self.queue.append((request, size))
        if not self.running:
            self.start(now)

    def start(self, now: float) -> None:
        request, size = self.queue.popleft()
        self.running = [request]
        self.ends = now + size / self.speed

    def finish(self, now: float) -> list[int]:
        """The requests that are done at `now`, which is `ends`."""
        done, self.running = self.running, []
        self.ends = float("inf")
        if self.queue:
            self.start(now)
        return done


class Batching(Serial):
    """Takes what waits, at most BATCH, as one batch: T = (BATCH_S + sum of sizes) / speed."""

    def start(self, now: float) -> None:
        took = [self.queue.popleft() for _ in range(min(BATCH, len(self.queue)))]
        self.running = [request for request, _ in took]
        self.ends = now + (BATCH_S + sum(size for _, size in took)) / self.speed


class Shared:
    """All requests at once, each at an equal part of the speed (continuous batching, time slicing)."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.work: list[tuple[float, int]] = []
        self.done_each = 0.0
        self.at = 0.0
        self.ends = float("inf")

    def _advance(self, now: float) -> None:
        if self.work:
            self.done_each += (now - self.at) * self.speed / len(self.work)
        self.at = now

    def _plan(self) -> None:
        if self.work:
            self.ends = self.at + (self.work[0][0] - self.done_each) * len(self.work) / self.speed
        else:
            self.ends = float("inf")

    def arrive(self, now: float, request: int, size: float) -> None:
        self._advance(now)
        heappush(self.work, (self.done_each + size, request))
        self._plan()

    def finish(self, now: float) -> list[int]:
        self._advance(now)
        _, request = heappop(self.work)
        self._plan()
        return [request]


class Unbounded:
    """Any number at once, none slows another: a server far from its limit."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.work: list[tuple[float, int]] = []
        self.ends = float("inf")

    def arrive(self, now: float, request: int, size: float) -> None:
        heappush(self.work, (now + size / self.speed, request))
        self.ends = self.work[0][0]

    def finish(self, now: float) -> list[int]:
        _, request = heappop(self.work)
        self.ends = self.work[0][0] if self.work else float("inf")
        return [request]


KINDS: dict[str, Callable[[float], Host]] = {
    "serial": Serial,
    "batching": Batching,
    "shared": Shared,
    "unbounded": Unbounded,
}
