"""Each host's own latency over the last minute, from the histograms that agents report. PURE."""

from __future__ import annotations

from collections import deque

from fleet_wire.agent import AgentStatus
from fleet_wire.histogram import LatencyHistogram

SPAN_S = 60.0


class HostLatencies:
    """Feed it each agent's status; ask it for a host's percentile."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[float, int, LatencyHistogram]]] = {}

    def feed(self, now: float, host: str, status: AgentStatus) -> None:
        """`now` in seconds. A histogram that can't be right is left out."""
        try:
            histogram = LatencyHistogram.from_wire(status.latency)
        except ValueError:
            return
        kept = self._kept.setdefault(host, deque())
        if kept and kept[-1][1] != status.pid:
            kept.clear()
        kept.append((now, status.pid, histogram))
        while len(kept) > 2 and kept[1][0] <= now - SPAN_S:
            kept.popleft()

    def p95_ms(self, host: str) -> float | None:
        """Milliseconds; None where nothing completed lately."""
        kept = self._kept.get(host)
        if not kept:
            return None
        return kept[-1][2].since(kept[0][2]).quantile(0.95)
