"""SkyServe's request-rate autoscaler.

ceil(requests of the last 60 s / 60 / target_qps_per_replica), decided every 20 s; up after 300 s, down after 1200 s of
decisions that all ask for it. Source: skypilot-org/skypilot sky/serve/autoscalers.py.
"""

from __future__ import annotations

import math

from bench.scaling.peers.recent import Recent

from fleet_controller.policies import Decision
from fleet_controller.window import Signal

WINDOW_S, PERIOD_S, UP_S, DOWN_S = 60.0, 20.0, 300.0, 1200.0


class SkyServe:
    def __init__(self, share: float, host_rps: float) -> None:
        self.target = share * host_rps
        self.rate = Recent(WINDOW_S)
        self.wanted: int | None = None
        self.next_at = -math.inf
        self.ups = self.downs = 0

    def __call__(self, signal: Signal, now: float) -> Decision:
        wanted = max(1, signal.ready + signal.starting) if self.wanted is None else self.wanted
        if signal.arrivals_per_s is not None:
            self.rate.add(now, signal.arrivals_per_s)
        mean = self.rate.mean()
        if now >= self.next_at and mean is not None:
            self.next_at = now + PERIOD_S
            needed = max(1, math.ceil(mean / self.target - 1e-9))
            self.ups = self.ups + 1 if needed > wanted else 0
            self.downs = self.downs + 1 if needed < wanted else 0
            if self.ups >= UP_S / PERIOD_S or self.downs >= DOWN_S / PERIOD_S:
                wanted, self.ups, self.downs = needed, 0, 0
        self.wanted = wanted
        return Decision(desired=wanted, reason="skyserve")
