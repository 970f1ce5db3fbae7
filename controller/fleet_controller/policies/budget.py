"""What a late request is worth in server time, and how many were late.

The price is in requests: at 8 a server is kept rather than one request late for every 8 that it could have served. One
price for all pools spends the fleet's hours where they save the most requests (a multiplier of Lagrange): raising it
for a pool as soon as that pool is a little over its share costs much and mends little. Only where far too many are late
(SPENT, of about a day) does it grow with their share.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from fleet_controller.spec.scaling import LatencyTarget
from fleet_controller.window import Signal

SHARE = 0.004  # of the requests: what may be late
SPENT = 0.012
PRICE, MOST = 8.0, 48.0
MEMORY_S = 86_400.0
FIRST_S = 6 * 3600.0  # before anything is known: so long with the allowance as it should be


class Budget(BaseModel):
    """Requests of about the last day, and how many were late; `at` the last look, Unix seconds."""

    model_config = ConfigDict(frozen=True)

    at: float
    requests: float = 0.0
    late: float = 0.0

    @property
    def share(self) -> float:
        return self.late / self.requests if self.requests else 0.0

    @property
    def price(self) -> float:
        return min(MOST, PRICE * max(1.0, self.share / SPENT))


def late_share(target: LatencyTarget, signal: Signal) -> float | None:
    """Share of the window's requests over the target: counted, or read off the percentiles (exponential tail)."""
    if signal.late_share is not None:
        return signal.late_share
    known = [(q, p) for q, p in ((0.5, signal.p50_ms), (0.95, signal.p95_ms), (0.99, signal.p99_ms)) if p]
    if len(known) < 2:
        return None
    limit = target.target_ms
    (q0, p0), (q1, p1) = known[0], known[1]
    for q, p in known[1:]:
        (q0, p0), (q1, p1) = ((q1, p1), (q, p)) if q > q1 else ((q0, p0), (q1, p1))
        if limit <= p:
            break
    if p1 <= p0:  # no tail to read: all at one place
        return 0.0 if p1 <= limit else 1.0 - q0
    decades = (limit - p0) / (p1 - p0)
    return min(1.0, (1 - q0) * math.pow((1 - q1) / (1 - q0), min(max(decades, -2.0), 100.0)))


def spent(budget: Budget | None, target: LatencyTarget, signal: Signal, now: float) -> Budget:
    """The budget after one more look."""
    share, rps = late_share(target, signal), signal.rps
    if budget is None:
        first = FIRST_S * (signal.arrivals_per_s or rps or 0.0)
        return Budget(at=now, requests=first, late=SHARE * first)
    seconds = min(max(0.0, now - budget.at), 60.0)
    kept = math.exp(-seconds / MEMORY_S)
    requests, late = budget.requests * kept, budget.late * kept
    if share is not None and rps:
        requests, late = requests + rps * seconds, late + rps * seconds * share
    return Budget(at=now, requests=requests, late=late)
