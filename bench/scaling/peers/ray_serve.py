"""Ray Serve's autoscaling.

desired = ceil(current + factor x (ongoing / target_ongoing_requests - current)), ongoing (running and queued) as mean
over look_back_period 30 s. Up after 30 s of decisions that all ask for more, down after 600 s of decisions that all
ask for less. Source: ray-project/ray python/ray/serve/autoscaling_policy.py, AutoscalingConfig's defaults (factors 1).
"""

from __future__ import annotations

import math

from bench.scaling.peers.recent import Recent

from fleet_controller.policies import Decision
from fleet_controller.window import Signal

LOOK_BACK_S, UP_S, DOWN_S = 30.0, 30.0, 600.0


class RayServe:
    def __init__(self, target_ongoing: float) -> None:
        self.target = target_ongoing
        self.ongoing = Recent(LOOK_BACK_S)
        self.current: int | None = None
        self.since: tuple[int, float] = (0, 0.0)  # direction, and since when all decisions have it

    def __call__(self, signal: Signal, now: float) -> Decision:
        current = max(1, signal.ready + signal.starting) if self.current is None else self.current
        if signal.in_flight is not None:
            self.ongoing.add(now, signal.in_flight)
        mean = self.ongoing.mean()
        wanted = current if mean is None else max(1, math.ceil(mean / self.target - 1e-9))
        way = (wanted > current) - (wanted < current)
        if way != self.since[0]:
            self.since = (way, now)
        held = now - self.since[1]
        if (way > 0 and held >= UP_S) or (way < 0 and held >= DOWN_S):
            current, self.since = wanted, (0, now)
        self.current = current
        return Decision(desired=current, reason="ray serve")
