"""How long a simulated host takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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

    @property
    def capacity_rps(self) -> float:
        """Requests per second of a host that never waits."""
        return self.max_batch / self.seconds_mean(self.max_batch)
