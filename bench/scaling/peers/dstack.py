"""dstack's service autoscaling, at its documented defaults.

ceil(requests/s over 60 s / target), looked at every 10 s; up no sooner than scale_up_delay (5 min) and down no sooner
than scale_down_delay (10 min) after the last scaling event; the first at once. Source: dstackai/dstack
src/dstack/_internal/server/services/services/autoscalers.py.
"""

from __future__ import annotations

import math

from bench.scaling.peers.look import Growth, Look

WINDOW_S, UP_S, DOWN_S = 60.0, 300.0, 600.0


class Dstack:
    period_s = 10.0
    sees: frozenset[str] = frozenset()

    def __init__(self, share: float, host_rps: float) -> None:
        self.target = share * host_rps
        self.rate = Growth(WINDOW_S)
        self.wanted: int | None = None
        self.scaled_at = -math.inf

    def __call__(self, look: Look, now: float) -> int:
        wanted = max(1, look.ready + look.starting) if self.wanted is None else self.wanted
        mean = self.rate.add(now, look.arrived)
        if mean is not None:
            needed = max(1, math.ceil(mean / self.target - 1e-9))
            delay = UP_S if needed > wanted else DOWN_S
            if needed != wanted and now - self.scaled_at >= delay:
                wanted, self.scaled_at = needed, now
        self.wanted = wanted
        return wanted
