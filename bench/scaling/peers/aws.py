"""AWS Application Auto Scaling: target tracking, step scaling, and predictive scaling.

Target tracking on requests per host: the managed alarms look at one-minute data points; out after 3 in a row over the
target, in after 15 in a row under 0.9 x target; capacity = ceil(ready x metric / target). Scale-out cooldown 300 s
(SageMaker's default), in which only more than what was already added counts; a scale-out breaks a scale-in cooldown.
Step scaling on p95: one-minute points, at once; +20 % / +50 % / +100 % by how far over the target the p95 is (at least
one), -1 after 15 points under a third of it; warming hosts count as capacity for the next step; cooldown 300 s in.
Predictive: an hourly forecast from 24 h to 14 d of history (here: the mean of the same hour over the past days, scaled
by how the last 24 h compare with theirs), its hour's peak as load, only ever out, 300 s ahead; with target tracking.
Source: docs.aws.amazon.com Application Auto Scaling, SageMaker and EC2 Auto Scaling user guides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.scaling.peers.look import Growth, Look

MINUTE_S = 60.0
OUT_POINTS, IN_POINTS = 3, 15
IN_SHARE = 0.9
COOLDOWN_S = 300.0
AHEAD_S = 300.0
DAY_H = 24


class TargetTracking:
    period_s = MINUTE_S
    sees: frozenset[str] = frozenset()

    def __init__(self, share: float, host_rps: float) -> None:
        self.target = share * host_rps
        self.rate = Growth(MINUTE_S)
        self.points: list[float] = []
        self.wanted: int | None = None
        self.out_at = self.in_at = -math.inf

    def __call__(self, look: Look, now: float) -> int:
        wanted = max(1, look.ready + look.starting) if self.wanted is None else self.wanted
        rate, ready = self.rate.add(now, look.arrived), max(1, look.ready)
        if rate is not None:
            self.points = points = [*self.points, rate / ready][-IN_POINTS:]
            needed = max(1, math.ceil(ready * points[-1] / self.target - 1e-9))
            if len(points) >= OUT_POINTS and all(p > self.target for p in points[-OUT_POINTS:]):
                if needed > wanted:  # in the cooldown, what was added already counts
                    wanted, self.out_at = needed, now
            elif (
                len(points) >= IN_POINTS
                and all(p < IN_SHARE * self.target for p in points)
                and needed < wanted
                and now - max(self.out_at, self.in_at) >= COOLDOWN_S
            ):
                wanted, self.in_at = needed, now
        self.wanted = wanted
        return wanted


class StepScaling:
    STEPS = ((1.0, 0.2), (1.3, 0.5), (1.8, 1.0))  # from this multiple of the target on, add this share
    period_s = MINUTE_S
    sees = frozenset({"p95"})

    def __init__(self, target_ms: float) -> None:
        self.target_ms = target_ms
        self.points: list[float] = []
        self.wanted: int | None = None
        self.in_at = self.out_at = -math.inf

    def __call__(self, look: Look, now: float) -> int:
        wanted = max(1, look.ready + look.starting) if self.wanted is None else self.wanted
        if look.p95_ms is not None:
            self.points = points = [*self.points, look.p95_ms][-IN_POINTS:]
            over = points[-1] / self.target_ms
            shares = [share for at, share in self.STEPS if over > at]
            if shares:
                step = max(1, math.ceil(shares[-1] * max(1, look.ready) - 1e-9))
                if look.ready + step > wanted:  # warming hosts count towards the same step
                    wanted, self.out_at = look.ready + step, now
            elif (
                len(points) >= IN_POINTS
                and all(p < self.target_ms / 3 for p in points)
                and now - max(self.in_at, self.out_at) >= COOLDOWN_S
                and wanted > 1
            ):
                wanted, self.in_at = wanted - 1, now
        self.wanted = wanted
        return wanted


class PredictiveScaling:
    """`hours` are the past hours' peak rates, oldest first, the last of which ended at `start_at`."""

    period_s = MINUTE_S
    sees: frozenset[str] = frozenset()

    def __init__(self, share: float, host_rps: float, hours: Sequence[float], start_at: float) -> None:
        self.tracking = TargetTracking(share, host_rps)
        self.target = share * host_rps
        self.hours, self.start_at = list(hours), start_at
        self.rate = Growth(MINUTE_S)
        self.this_hour: tuple[int, float] = (0, 0.0)

    def __call__(self, look: Look, now: float) -> int:
        tracked = self.tracking(look, now)
        rate = self.rate.add(now, look.arrived) or 0.0
        hour = int((now - self.start_at) // 3600)
        if hour != self.this_hour[0]:
            self.hours.append(self.this_hour[1])
            self.this_hour = (hour, 0.0)
        self.this_hour = (hour, max(self.this_hour[1], rate))
        ahead = int((now + AHEAD_S - self.start_at) // 3600)
        load = max(self.forecast(hour, hour), self.forecast(hour, ahead))
        return max(tracked, math.ceil(load / self.target - 1e-9))

    def forecast(self, now: int, hour: int) -> float:
        """The peak rate of `hour` (counted from the start); 0 with less than a day of history."""
        first = len(self.hours) - now  # where hour 0 lies
        same = [
            self.hours[i] for i in range((first + hour) % DAY_H, min(len(self.hours), first + hour), DAY_H)
        ]
        last, before = self.hours[-DAY_H:], self.hours[:-DAY_H]
        if len(self.hours) < DAY_H or not same:
            return 0.0
        days = len(before) / DAY_H
        growth = (sum(last) / (sum(before) / days)) if days >= 1 and sum(before) else 1.0
        return sum(same) / len(same) * min(max(growth, 0.5), 2.0)
