"""Knative's pod autoscaler (KPA) on concurrency, at its documented defaults.

Every 2 s, from the mean concurrency over 60 s (stable) and over 6 s (panic): each over the target per pod, rounded up,
at least half of the ready pods (rounded down) and at most 1000 x. Panic begins while the panic value asks for at least
twice the ready pods, and ends 60 s after the last such moment: in panic the larger of the two, and never less than
the most of this panic. It begins in panic where more than one pod is ready. Pods that start don't count.
Source: knative/serving pkg/autoscaler/scaling/autoscaler.go, config-autoscaler. The target is the concurrency at which
a host still keeps its latency, times the share (container-concurrency-target-percentage).
"""

from __future__ import annotations

import math

from bench.scaling.peers.look import Growth, Look

STABLE_S, PANIC_S, PANIC_AT = 60.0, 6.0, 2.0
UP, DOWN = 1000.0, 2.0


class Knative:
    period_s = 2.0
    sees: frozenset[str] = frozenset()

    def __init__(self, target_concurrency: float) -> None:
        self.target = target_concurrency
        self.stable, self.panic = Growth(STABLE_S), Growth(PANIC_S)
        self.began = False
        self.panicked_at: float | None = None
        self.most = 0

    def __call__(self, look: Look, now: float) -> int:
        if not self.began and look.ready > 1:
            self.panicked_at, self.most = now, look.ready
        self.began = True
        stable, panic = self.stable.add(now, look.stayed_s), self.panic.add(now, look.stayed_s)
        if stable is None or panic is None:
            return max(1, look.ready + look.starting)  # no data: nothing changes
        ready = max(1, look.ready)
        low, high = math.floor(ready / DOWN), math.ceil(ready * UP)
        slow, fast = math.ceil(stable / self.target - 1e-9), math.ceil(panic / self.target - 1e-9)
        if fast / ready >= PANIC_AT:
            self.panicked_at = now
        elif self.panicked_at is not None and self.panicked_at + STABLE_S < now:
            self.panicked_at, self.most = None, 0
        wanted = min(max(slow, low), high)
        if self.panicked_at is not None:
            self.most = wanted = max(self.most, wanted, min(max(fast, low), high))
        return max(1, wanted)
