"""Kubernetes HPA v2, at its documented defaults.

Every 15 s: ratio = mean metric / target; no change while |ratio - 1| <= 0.1; else ceil(ratio x pods with metrics).
Pods not ready count as 0 on the way up; running pods without a metric yet count as 0 on the way up and as just on
target on the way down; if that takes the new ratio to the other side of 1 or into the tolerance, or the new number to
the other side of the present one, nothing happens. Up: the larger of +100 % and +4 pods in 15 s. Down: the largest
recommendation of the last 300 s.
Source: kubernetes/kubernetes pkg/controller/podautoscaler/{replica_calculator,horizontal}.go.

Metric "utilization": mean busy share of the devices over 30 s. "requests": requests/s per pod over 30 s, target a
share of what one host can do. (Pods metrics: the five minutes in which CPU of a young pod is ignored don't apply.)
"""

from __future__ import annotations

import math

from bench.scaling.peers.look import Growth, Largest, Look

TOLERANCE = 0.1
STABLE_S, RATE_S = 300.0, 30.0
UP_TIMES, UP_PODS = 2, 4


class Hpa:
    period_s = 15.0

    def __init__(self, metric: str, share: float, host_rps: float) -> None:
        self.metric, self.target = metric, share if metric == "utilization" else share * host_rps
        self.sees = frozenset({"utilization"} if metric == "utilization" else ())
        self.wanted: int | None = None
        self.arrivals = Growth(RATE_S)
        self.recommended = Largest(STABLE_S)

    def __call__(self, look: Look, now: float) -> int:
        current = look.ready + look.starting if self.wanted is None else self.wanted
        rate = self.arrivals.add(now, look.arrived)
        if self.metric == "utilization":
            mean, reporting = look.utilization, look.reporting
        else:
            mean, reporting = None if rate is None else rate / max(1, look.ready), look.ready
        proposed = self.propose(current, look.ready, reporting, mean)
        largest = self.recommended.add(now, proposed)
        if proposed > current:
            current = min(proposed, max(UP_TIMES * current, current + UP_PODS))
        else:
            current = min(current, largest)
        self.wanted = current
        return current

    def propose(self, current: int, ready: int, reporting: int, mean: float | None) -> int:
        if mean is None or not reporting:
            return current
        ratio = mean / self.target
        unready, missing = max(0, current - ready), max(0, ready - reporting)
        if not missing and not (unready and ratio > 1):
            return current if abs(ratio - 1) <= TOLERANCE else max(1, _ceil(ratio * reporting))
        total, pods = ratio * reporting, reporting + missing
        if ratio < 1:
            total += missing
        else:
            pods += unready
        damped = total / pods
        crossed = (ratio < 1 < damped) or (damped < 1 < ratio)
        number = max(1, _ceil(damped * pods))
        if abs(damped - 1) <= TOLERANCE or crossed or (damped < 1 and number > current) or (
            damped > 1 and number < current
        ):  # fmt: skip
            return current
        return number


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)
