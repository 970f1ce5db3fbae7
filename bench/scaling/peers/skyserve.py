"""SkyServe's request-rate autoscaler, at its documented defaults.

ceil(requests of the last 60 s / 60 / target_qps_per_replica), decided every 20 s; up after 300 s, down after 1200 s of
decisions that all ask for it. Source: skypilot-org/skypilot sky/serve/autoscalers.py.
"""

from __future__ import annotations

import math

from bench.scaling.peers.look import Growth, Look

WINDOW_S, UP_S, DOWN_S = 60.0, 300.0, 1200.0


class SkyServe:
    period_s = 20.0
    sees: frozenset[str] = frozenset()

    def __init__(self, share: float, host_rps: float) -> None:
        self.target = share * host_rps
        self.rate = Growth(WINDOW_S)
        self.wanted: int | None = None
        self.ups = self.downs = 0

    def __call__(self, look: Look, now: float) -> int:
        wanted = max(1, look.ready + look.starting) if self.wanted is None else self.wanted
        mean = self.rate.add(now, look.arrived)
        if mean is not None:
            needed = max(1, math.ceil(mean / self.target - 1e-9))
            self.ups = self.ups + 1 if needed > wanted else 0
            self.downs = self.downs + 1 if needed < wanted else 0
            if self.ups >= UP_S / self.period_s or self.downs >= DOWN_S / self.period_s:
                wanted, self.ups, self.downs = needed, 0, 0
        self.wanted = wanted
        return wanted
