"""What one tick found and decided for a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet_controller.explain.bursts import Bursts
from fleet_controller.policies import STALE_AFTER_S, Decision
from fleet_controller.records import PoolRecord
from fleet_controller.window import Signal


@dataclass(frozen=True)
class PoolTick:
    """One pool at one tick. `decision` is None while the fleet goes down or the pool is paused.

    `latency_ms` {p50, p95, p99} is what clients saw in the window; `roomless` hosts lack device memory. A signal older
    than `stale_after_s` moves nothing. `bursts`: see diagnosis.Case.
    """

    record: PoolRecord
    signal: Signal | None
    latency_ms: Mapping[str, float | None]
    roomless: frozenset[str]
    decision: Decision | None = None
    stale_after_s: float = STALE_AFTER_S
    bursts: Bursts | None = None
