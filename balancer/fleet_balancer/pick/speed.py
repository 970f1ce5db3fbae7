"""How fast each host is against the others, learned from how long its answers took. PURE.

The logarithm of a latency is taken as the sum of a level, which the pool's hosts have in common for a model and a
depth (how many requests the host had, this one included), and of the host's own lag. Both are moving averages of what
the other leaves over. Logarithms, because requests differ in size by orders of magnitude and a mean of them is mostly
noise; one level per depth, because how latency grows with depth is the server's nature (one at a time, batches, time
slices) and is learned here instead of assumed; one per model, so that no host is slow because it serves the large one.
"""

from __future__ import annotations

from math import exp, log

from fleet_balancer.member.member import Member

# Answers that a host's lag and a level remember, and how many a host needs before its lag counts.
MEMORY = 128
LEVEL_MEMORY = 256
ENOUGH = 24
# Only differences between hosts mean anything: this part of a lag is given up each time, so that all stay around 0.
GIVEN_UP = 0.0005
# Hosts closer to the level than this are equal: an even fleet keeps plain least connections.
ALIKE = 0.2
FASTEST = log(8.0)
STEP = 0.125
_LEVELS_KEPT = 1024


class Speeds:
    """One pool's levels, in log milliseconds."""

    def __init__(self) -> None:
        self._levels: dict[tuple[str | None, int], tuple[float, int]] = {}

    def learn(self, member: Member, model: str | None, latency_ms: float, depth: int) -> bool:
        """Take one answer into account; True where that changed member.speed."""
        took = log(latency_ms) if latency_ms > 0.001 else -7.0
        key = (model, depth if depth <= 8 else 8 + depth.bit_length())
        lag = member.lag
        found = self._levels.get(key)
        if found is None:
            if len(self._levels) >= _LEVELS_KEPT:
                self._levels.clear()
            self._levels[key] = (took - lag, 1)
            return False
        level, count = found
        if count < LEVEL_MEMORY:
            count += 1
        level += (took - lag - level) / count
        self._levels[key] = (level, count)
        seen = member.seen
        if seen < MEMORY:
            member.seen = seen = seen + 1
        member.lag = lag = lag + (took - level - lag) / seen - GIVEN_UP * lag
        # A step is left only when the lag is well past its middle: noise does not move a host to and fro.
        if seen < ENOUGH or abs(lag - member.lag_step) < 0.75 * STEP:
            return False
        step = max(-FASTEST, min(FASTEST, round(lag / STEP) * STEP))
        speed = 1.0 if abs(step) < ALIKE else exp(-step)
        member.lag_step = step
        changed = speed != member.speed
        member.speed = speed
        return changed
