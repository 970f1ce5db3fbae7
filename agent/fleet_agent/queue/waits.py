"""Many durations into a histogram, cheaply: they are kept as they come and counted a thousand at a time. PURE."""

from __future__ import annotations

import numpy as np

from fleet_wire.histogram import GAMMA, MAX_MS, MIN_MS, LatencyHistogram

_AT_ONCE = 1024
_LOG_GAMMA = float(np.log(GAMMA))


class Waits:
    """`add` seconds, read `histogram`."""

    def __init__(self) -> None:
        self._pending: list[float] = []
        self._counted = LatencyHistogram()

    def add(self, seconds: list[float]) -> None:
        self._pending += seconds
        if len(self._pending) >= _AT_ONCE:
            self._count()

    def merge(self, other: Waits) -> None:
        """Count the other's too."""
        self.histogram.merge(other.histogram)

    @property
    def histogram(self) -> LatencyHistogram:
        """Of all so far; in milliseconds, as all of them."""
        if self._pending:
            self._count()
        return self._counted

    def _count(self) -> None:
        ms = np.clip(np.array(self._pending) * 1000.0, MIN_MS, MAX_MS)
        self._pending = []
        indexes, counts = np.unique(np.ceil(np.log(ms) / _LOG_GAMMA).astype(int), return_counts=True)
        found = dict(zip(indexes.tolist(), counts.tolist(), strict=True))
        self._counted.merge(LatencyHistogram(found, len(ms), float(ms.sum())))
