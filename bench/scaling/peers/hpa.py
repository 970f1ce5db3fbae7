"""Kubernetes HPA v2.

desired = ceil(ready x metric / target), every 15 s, no change while |metric / target - 1| <= 0.1. Pods not ready yet
count as 0 on the way up (so that they damp it), and if that turns the direction, nothing happens. Down: the largest
recommendation of the last 300 s. Bounds of one step: up the larger of 100 % or 4 pods in 15 s, down 100 % in 15 s.
Source: kubernetes/kubernetes pkg/controller/podautoscaler/{replica_calculator,horizontal}.go and its documented
defaults.
Metric "utilization": mean busy share of the devices (resource metric). "requests": requests/s per pod (pods metric),
target a share of what one host can do.
"""

from __future__ import annotations

import math

from bench.scaling.peers.recent import Recent

from fleet_controller.policies import Decision
from fleet_controller.window import Signal

PERIOD_S = 15.0
TOLERANCE = 0.1
STABLE_S = 300.0


class Hpa:
    def __init__(self, metric: str, target: float, host_rps: float) -> None:
        self.metric, self.target = metric, target if metric == "utilization" else target * host_rps
        self.wanted: int | None = None
        self.next_at = -math.inf
        self.recommended = Recent(STABLE_S)

    def __call__(self, signal: Signal, now: float) -> Decision:
        current = signal.ready + signal.starting if self.wanted is None else self.wanted
        if now >= self.next_at:
            self.next_at = now + PERIOD_S
            proposed = self.propose(signal, current)
            self.recommended.add(now, proposed)
            current = self.stable(current, proposed)
        self.wanted = current
        return Decision(desired=current, reason=f"hpa {self.metric}")

    def propose(self, signal: Signal, current: int) -> int:
        value = signal.utilization
        if self.metric == "requests":
            value = None if signal.arrivals_per_s is None else signal.arrivals_per_s / max(1, signal.ready)
        if value is None or not signal.ready:
            return current
        ratio = value / self.target
        if abs(ratio - 1) <= TOLERANCE:
            return current
        unready = max(0, current - signal.ready)
        if not unready or ratio < 1:
            return max(1, math.ceil(ratio * signal.ready - 1e-9))
        damped = ratio * signal.ready / (signal.ready + unready)  # the unready at 0
        if abs(damped - 1) <= TOLERANCE or (damped > 1) != (ratio > 1):
            return current
        return max(1, math.ceil(damped * (signal.ready + unready) - 1e-9))

    def stable(self, current: int, proposed: int) -> int:
        if proposed > current:
            return min(proposed, max(2 * current, current + 4))
        return min(current, int(max(self.recommended.values)))
