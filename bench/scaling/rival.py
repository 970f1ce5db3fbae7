"""A run of another autoscaler: the same kernel and hosts as fleetctl's, and only what that autoscaler sees."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from bench.scaling.peers.look import Look, Peer

from fleet_controller.policies import Decision
from fleet_controller.simulate import kernel
from fleet_controller.simulate.kernel import LOWEST, READY, STARTING
from fleet_controller.simulate.report import Turn
from fleet_controller.simulate.run import Run, Setting
from fleet_controller.simulate.trace import Trace
from fleet_controller.spec.scaling import ScalingSpec
from fleet_wire.histogram import GAMMA

BUSY_S = 30.0


def _unused(signal: object, now: float) -> Decision:
    raise AssertionError("a rival looks for itself")


class RivalRun(Run):
    """The simulation's clock with a look of its own: no window, no histograms of 60 s, no plan. Only the hosts up to
    the last one that lives are handed to the kernel: the others can't change."""

    def __init__(
        self, trace: Trace, spec: ScalingSpec, setting: Setting, peer: Peer, arrivals: Any = None
    ) -> None:
        super().__init__(trace, spec, setting, _unused, None, arrivals)
        self.peer = peer
        self._all = self.host
        self._busy: deque[tuple[float, Any, Any]] = deque()
        self._answers = np.array(self.seen)

    def _advance(self, now: float, stop: float) -> None:
        lives = np.flatnonzero(self.phase)
        until = int(lives[-1]) + 1 if len(lives) else 1
        self.host = tuple(column[:until] for column in self._all)
        super()._advance(now, stop)

    def _close(self) -> None:
        if self.ended.any():
            super()._close()

    def _look(self, now: float) -> None:
        self._close()
        wall = self.setting.start_at + now
        ready, starting = np.count_nonzero(self.phase == READY), np.count_nonzero(self.phase == STARTING)
        counters, sees = self.counters, self.peer.sees
        there = counters[kernel.ARRIVED] - counters[kernel.ANSWERED]
        utilization, reporting = self._utilization(now) if "utilization" in sees else (None, 0)
        wanted = self.peer(
            Look(
                ready=int(ready),
                starting=int(starting),
                arrived=int(counters[kernel.ARRIVED]),
                stayed_s=float(counters[kernel.STAYED_S] + there * now),
                utilization=utilization,
                reporting=reporting,
                p95_ms=self._p95() if "p95" in sees else None,
            ),
            wall,
        )
        wanted = min(wanted, self.hosts)
        decision = Decision.model_construct(desired=wanted, reason="")
        if wanted != self.wanted:
            self.turns.append(Turn(at=now, servers=wanted, reason=""))
        self.wanted = wanted
        if wanted != ready + starting:
            self._become(now, decision, self.phase.tolist(), self.flying.tolist())

    def _utilization(self, now: float) -> tuple[float | None, int]:
        """Mean busy share of the hosts that were ready 30 s ago (or at the first look) and still are, and how many."""
        busy = self.busy + np.where(self.batch >= 0, now - self.since, 0.0)
        process = np.where(self.phase == READY, np.array(self.served), -1)
        kept = self._busy
        kept.append((now, busy, process))
        while len(kept) > 2 and kept[1][0] <= now - BUSY_S:
            kept.popleft()
        then, before, was = kept[0]
        same = (process >= 0) & (process == was)
        if then == now or not same.any():
            return None, 0
        return float((busy - before)[same].mean() / (now - then)), int(same.sum())

    def _p95(self) -> float | None:
        counts = self.seen - self._answers
        self._answers = self.seen.copy()
        total = int(counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(counts), 0.95 * total))
        return float(GAMMA ** (LOWEST + place))
