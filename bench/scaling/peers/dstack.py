"""dstack's service autoscaling.

ceil(requests/s over 60 s / target); up no sooner than scale_up_delay (5 min) and down no sooner than scale_down_delay
(10 min) after the last scaling event. Source: dstackai/dstack src/dstack/_internal/server/services/services/
autoscalers.py.
"""

from __future__ import annotations

import math

from bench.scaling.peers.recent import Recent

from fleet_controller.policies import Decision
from fleet_controller.window import Signal

WINDOW_S, UP_S, DOWN_S = 60.0, 300.0, 600.0


class Dstack:
    def __init__(self, share: float, host_rps: float) -> None:
        self.target = share * host_rps
        self.rate = Recent(WINDOW_S)
        self.wanted: int | None = None
        self.scaled_at = -math.inf

    def __call__(self, signal: Signal, now: float) -> Decision:
        wanted = max(1, signal.ready + signal.starting) if self.wanted is None else self.wanted
        if signal.arrivals_per_s is not None:
            self.rate.add(now, signal.arrivals_per_s)
        mean = self.rate.mean()
        if mean is not None:
            needed = max(1, math.ceil(mean / self.target - 1e-9))
            delay = UP_S if needed > wanted else DOWN_S
            if needed != wanted and now - self.scaled_at >= delay:
                wanted, self.scaled_at = needed, now
        self.wanted = wanted
        return Decision(desired=wanted, reason="dstack")
