"""Knative's pod autoscaler (KPA) on concurrency.

Every 2 s (here at each look): stable = mean concurrency over 60 s, panic = over 6 s; each over the target per pod,
rounded up, at most 1000 x and at least half of the ready pods. Panic while the panic value asks for twice the ready
pods: then the larger of both, never down, until a stable window after the last such moment.
Source: knative/serving pkg/autoscaler/scaling/autoscaler.go, config-autoscaler. The target is the concurrency at which
a host still keeps its latency, times the share (container-concurrency-target-percentage).
"""

from __future__ import annotations

import math

from bench.scaling.peers.recent import Recent

from fleet_controller.policies import Decision
from fleet_controller.window import Signal

STABLE_S, PANIC_S, PANIC_AT = 60.0, 6.0, 2.0
UP, DOWN = 1000.0, 2.0


class Knative:
    def __init__(self, target_concurrency: float) -> None:
        self.target = target_concurrency
        self.stable, self.panic = Recent(STABLE_S), Recent(PANIC_S)
        self.panicked_at: float | None = None
        self.most = 0

    def __call__(self, signal: Signal, now: float) -> Decision:
        if signal.in_flight is None:
            return Decision(desired=max(1, signal.ready + signal.starting), reason="kpa: no data")
        ready = max(1, signal.ready)
        concurrency = signal.in_flight  # at the hosts: what waits there is in it
        self.stable.add(now, concurrency)
        self.panic.add(now, concurrency)
        low, high = math.floor(ready / DOWN), math.ceil(ready * UP)
        wanted = min(max(math.ceil((self.stable.mean() or 0.0) / self.target), low), high)
        urgent = min(max(math.ceil((self.panic.mean() or 0.0) / self.target), low), high)
        if urgent / ready >= PANIC_AT:
            if self.panicked_at is None:
                self.most = 0
            self.panicked_at = now
        elif self.panicked_at is not None and now - self.panicked_at > STABLE_S:
            self.panicked_at = None
        if self.panicked_at is not None:
            self.most = max(self.most, wanted, urgent, ready)
            wanted = self.most
        return Decision(desired=max(1, wanted), reason="kpa")
