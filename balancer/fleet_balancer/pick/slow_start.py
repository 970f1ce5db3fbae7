"""A host that has just become healthy begins with a tenth of its share and grows to all of it. PURE.

Caches and compiled kernels are cold at first (nginx `slow_start`, Envoy slow start mode). Where all hosts are new,
as after the balancer's own start or from zero, there is nobody who could carry more, so nobody ramps: that is, a host
that joins within `slow_start_s` of the first one.
"""

from __future__ import annotations

SMALLEST = 0.1
# Shares move in steps, so that equal hosts that ramp together stay equal.
STEPS = 20


def ramp_of(since: float, began: float, now: float, slow_start_s: float) -> float:
    """The share of its weight that a host gets that is healthy since `since`, the pool's first since `began`."""
    if slow_start_s <= 0 or since < began + slow_start_s or now >= since + slow_start_s:
        return 1.0
    return max(SMALLEST, _steps(since, now, slow_start_s) / STEPS)


def next_step(since: float, now: float, slow_start_s: float) -> float:
    """When to look at it again."""
    return since + (_steps(since, now, slow_start_s) + 1) * slow_start_s / STEPS


def _steps(since: float, now: float, slow_start_s: float) -> int:
    return int((now - since) / slow_start_s * STEPS + 1e-6)
