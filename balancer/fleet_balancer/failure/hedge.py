"""When a request that may be sent twice is: after the pool's own p95, within a budget of its own. PURE.

Dean & Barroso, "The Tail at Scale" (2013): a second request sent after the 95th percentile takes most of the tail away
for some 5 % more load. Where everything is slow, more than 5 % would be hedged just when it does harm: the budget
(10 % of requests + 1/s) is for that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from fleet_balancer.failure.budget import Budget

HEDGE_SHARE = 0.1
HEDGES_PER_S = 1.0
QUANTILE = 0.95
# The p95 is of the last WINDOW latencies. Of fewer than LEAST nothing is concluded.
WINDOW = 1000
LEAST = 100


class Hedge:
    """`after_ms`: how long an unanswered request waits before its second copy goes; None: not known yet."""

    __slots__ = ("_recent", "after_ms", "budget")

    def __init__(self, budget: Budget | None = None) -> None:
        self.after_ms: float | None = None
        self.budget = budget or Budget(HEDGE_SHARE, HEDGES_PER_S)
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def learn(self, latencies_ms: Iterable[float]) -> None:
        """Latencies of completed requests since the last call."""
        recent = self._recent
        recent.extend(latencies_ms)
        if len(recent) >= LEAST:
            self.after_ms = sorted(recent)[math.ceil(QUANTILE * len(recent)) - 1]

    def allows(self, now: float, seen: int) -> bool:
        """Take one hedge out of the budget. `seen`: see Budget.allows."""
        return self.budget.allows(now, seen)

    def __repr__(self) -> str:
        after = "unknown" if self.after_ms is None else f"{self.after_ms:.1f} ms"
        return f"<Hedge after {after}>"
