"""Ray Serve's autoscaling, at its documented defaults.

desired = ceil(running + factor x (ongoing / target_ongoing_requests - running)), factor 1: ceil(ongoing / target).
Ongoing (running and queued) is a mean over look_back_period 30 s that the handles send every 10 s. The loop runs every
0.1 s: up after 30 s of decisions that all ask for more, down after 600 s of decisions that all ask for less (here every
5 s: between two messages nothing changes). Replicas that start don't change the formula.
Source: ray-project/ray python/ray/serve/autoscaling_policy.py, AutoscalingConfig.
"""

from __future__ import annotations

import math

from bench.scaling.peers.look import Growth, Look

LOOK_BACK_S, SENT_S, UP_S, DOWN_S = 30.0, 10.0, 30.0, 600.0


class RayServe:
    period_s = 5.0
    sees: frozenset[str] = frozenset()

    def __init__(self, target_ongoing: float) -> None:
        self.target = target_ongoing
        self.ongoing = Growth(LOOK_BACK_S)
        self.sent: float | None = None
        self.send_at = -math.inf
        self.wanted: int | None = None
        self.since: tuple[int, float] = (0, 0.0)  # direction, and since when all decisions have it

    def __call__(self, look: Look, now: float) -> int:
        current = max(1, look.ready + look.starting) if self.wanted is None else self.wanted
        mean = self.ongoing.add(now, look.stayed_s)
        if now >= self.send_at:
            self.sent, self.send_at = mean, now + SENT_S
        asked = current if self.sent is None else max(1, math.ceil(self.sent / self.target - 1e-9))
        way = (asked > current) - (asked < current)
        if way != self.since[0]:
            self.since = (way, now)
        held = now - self.since[1]
        if (way > 0 and held >= UP_S) or (way < 0 and held >= DOWN_S):
            current, self.since = asked, (0, now)
        self.wanted = current
        return current
