"""How fast each host is, learned from how long its answers took. PURE.

A host that is k requests deep takes about k times as long: latency / k is what one request costs there. Requests
differ in size by orders of magnitude, so means are useless and logarithms are averaged: hosts differ in them by a
shift. Each model has its own level, so that a host is not slow because it serves the large one.
"""

from __future__ import annotations

from math import exp, log

from fleet_balancer.member import Member

# Answers that a host's figure remembers, and that it needs before it counts.
MEMORY = 64
ENOUGH = 16
# Hosts closer to the level than this are equal: an even fleet keeps plain least connections.
ALIKE = 0.2
FASTEST = log(8.0)
STEP = 0.125
_LEVELS_KEPT = 256


class Speeds:
    """One pool's levels: the logarithm of milliseconds per request and depth, by model."""

    def __init__(self) -> None:
        self._levels: dict[str | None, tuple[float, int]] = {}

    def learn(self, member: Member, model: str | None, latency_ms: float, depth: int) -> bool:
        """Take one answer into account; True where that changed member.speed."""
        cost = log(max(latency_ms, 0.001) / depth)
        levels = self._levels
        level, count = levels.get(model, (cost, 0))
        if count < 1024:
            if not count and len(levels) >= _LEVELS_KEPT:
                levels.clear()
            count += 1
        level += (cost - level) / count
        levels[model] = (level, count)
        seen = member.seen
        if seen < MEMORY:
            member.seen = seen = seen + 1
        member.lag += (cost - level - member.lag) / seen
        if seen < ENOUGH:
            return False
        lag = member.lag
        # A step is left only when the figure is well past its middle: noise does not move a host to and fro.
        if abs(lag - member.lag_step) < 0.75 * STEP:
            return False
        return self._step(member, lag)

    def _step(self, member: Member, lag: float) -> bool:
        step = max(-FASTEST, min(FASTEST, round(lag / STEP) * STEP))
        if step == member.lag_step:
            return False
        member.lag_step = step
        speed = 1.0 if abs(step) < ALIKE else exp(-step)
        if speed == member.speed:
            return False
        member.speed = speed
        return True
