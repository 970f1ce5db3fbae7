"""How many requests a second this host answers within the latency target, by its models' curves. PURE.

The estimate is the controller's own (fleet_wire.capacity), for this one host. It costs a few milliseconds, so it is
made anew every few seconds at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleet_wire.capacity import ModelLoad, pool_capacity

_FRESH_S = 2.0


class Capacity:
    """Keeps the last estimate."""

    def __init__(self, target_ms: float | None, percentile: float) -> None:
        self._target_ms = target_ms
        self._percentile = percentile
        self._at = float("-inf")
        self._rps: float | None = None

    def rps(self, models: Callable[[], Sequence[ModelLoad]], now: float) -> float | None:
        """None: no target is configured, no curve is known, or not even one request is that fast."""
        if self._target_ms is None:
            return None
        if now - self._at >= _FRESH_S:
            self._at = now
            loads = models()
            self._rps = pool_capacity([loads], self._target_ms, self._percentile) if loads else None
        return self._rps
