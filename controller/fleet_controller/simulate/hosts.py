"""A host as the simulation sees it: a queue, and a device that takes what waits as one batch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Literal

HostPhase = Literal["starting", "ready", "draining"]


@dataclass(frozen=True)
class ServiceCurve:
    """How long a batch takes: `base_s + per_request_s x n`, `n` up to `max_batch`.

    `jitter` is "none", or "exponential" (the time is drawn with that mean: the M in M/M/c).
    """

    base_s: float = 0.02
    per_request_s: float = 0.002
    max_batch: int = 32
    jitter: Literal["none", "exponential"] = "none"

    def seconds_mean(self, n: int) -> float:
        return self.base_s + self.per_request_s * n

    def seconds(self, n: int, chance: Random) -> float:
        mean = self.seconds_mean(n)
        return chance.expovariate(1.0 / mean) if self.jitter == "exponential" and mean > 0 else mean

    @property
    def capacity_rps(self) -> float:
        """Requests per second of a host that never waits."""
        return self.max_batch / self.seconds_mean(self.max_batch)


@dataclass(eq=False)
class SimHost:
    """`waiting` and `batch` hold arrival times; busy seconds and completed requests are counters, as an
    agent's.
    """

    name: str
    began: float
    phase: HostPhase = "starting"
    waiting: deque[float] = field(default_factory=deque)
    batch: list[float] = field(default_factory=list)
    batch_began: float = 0.0
    busy_before: float = 0.0
    completed: int = 0

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.batch)

    def busy_s(self, now: float) -> float:
        return self.busy_before + (now - self.batch_began if self.batch else 0.0)

    def take(self, now: float, curve: ServiceCurve, chance: Random) -> float | None:
        """Start a batch of what waits, if the device is free; when it will be done, None if there is none."""
        if self.batch or not self.waiting:
            return None
        n = min(curve.max_batch, len(self.waiting))
        self.batch = [self.waiting.popleft() for _ in range(n)]
        self.batch_began = now
        return now + curve.seconds(n, chance)

    def finish(self, now: float) -> list[float]:
        """The arrival times of the batch that is done."""
        done, self.batch = self.batch, []
        self.busy_before += now - self.batch_began
        self.completed += len(done)
        return done
