"""What one server can carry within the latency target: learned from load and latency, never asked for.

The reciprocal of a latency percentile falls in a straight line as the load per server grows: 1 / p = a - b x load.
Exactly so for M/M/1 (1 / W = mu - lambda) and for a host that takes what waits as one batch of n in c + d n seconds
(then a batch takes c / (1 - d x load)); measured on simulated batching hosts it holds from a third of the load to its
limit within a few per cent. So two loads are enough to see where the target will be met. Utilization says little here:
such a host is busy all the time at half of its limit, and what it completes per busy second is just its load.

A straight line knows nothing of a cliff (a largest batch, a lock), so the line is believed only a little beyond what
was seen to go well (`proven`). n servers share their peaks: the same load per server is easier on many, by
1 + 0.3 / sqrt(n) (square-root staffing).
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from fleet_controller.spec.scaling import LatencyTarget
from fleet_controller.window import Signal

POOLING = 0.3
AIM = 0.92  # of the target: what the percentile is kept at
BEYOND = 1.6  # times `proven`: as far as the line is believed; a pool with headroom runs well under its limit
BLIND = 0.4  # without a line: the room between latency and target, to this power
UNDER_LATE = 0.94  # of a load that was late
EACH_LATE = 0.1  # how far one late look moves what is known
TRANSIENT = 0.4  # of the percentile: a median below it
RELAXED_S = 180_000.0  # in which that is forgotten by a factor e: 2 % an hour
FORGET = 0.999  # per look: an hour and a half
LOOKS = 4.0  # at full weight, before the line is drawn
SHARPNESS = 6.0  # weight of a look: its load over the proven one, to this power; light load is off the line
SPREAD = 0.05  # of the load, as standard deviation: less says nothing about the slope
STEADY_S = 70.0  # since the number of ready servers last changed
UNEVEN = 0.25
EVIDENCE = 50  # requests in the window
FIRST_UTILIZATION = 0.7


class Profile(BaseModel):
    """Sums of the line's regression (weight, load, 1/ms, load^2, load/ms). `proven` is the largest load per server,
    corrected for pooling, that met the aim, and `proven_ms` its percentile; `limit` lies under the least load that
    did not meet the target. `ready` and `since`: how many servers there are, and since when; `looked`: the last look
    that taught.
    """

    model_config = ConfigDict(frozen=True)

    sums: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    proven: float | None = None
    proven_ms: float = 0.0
    limit: float | None = None
    ready: int = 0
    since: float = 0.0
    looked: float = 0.0

    def load(self, target_ms: float) -> float | None:
        """Requests per second (corrected for pooling) that one server carries within the aim; None: not known yet."""
        if self.proven is None:
            return None
        most = BEYOND * self.proven if self.limit is None else min(BEYOND * self.proven, self.limit)
        room = AIM * target_ms / max(self.proven_ms, 1e-3)
        blind: float = min(most, self.proven * max(1.0, room) ** BLIND)
        w, x, y, xx, xy = self.sums
        if w < LOOKS:
            return blind
        spread = xx / w - (x / w) ** 2
        if spread <= (SPREAD * x / w) ** 2:
            return blind
        slope = (xy / w - x * y / w / w) / spread
        if slope >= 0:
            return blind
        at_aim = x / w + (1.0 / (AIM * target_ms) - y / w) / slope
        return min(most, max(at_aim, 0.5 * self.proven))


def pooled(servers: int) -> float:
    return 1.0 + POOLING / math.sqrt(max(1, servers))


def carried(load: float, servers: int) -> float:
    """Requests per second that so many servers carry together."""
    return servers * load / pooled(servers)


def percentile_ms(target: LatencyTarget, signal: Signal) -> float | None:
    """The percentile that is kept: p99, or the target's own where that is no tail."""
    if target.percentile >= 95 and signal.p99_ms is not None:
        return signal.p99_ms
    if signal.percentile_ms is not None:
        return signal.percentile_ms
    return {50.0: signal.p50_ms, 95.0: signal.p95_ms}.get(target.percentile, signal.p95_ms)


def learn(profile: Profile | None, target: LatencyTarget, signal: Signal, now: float) -> Profile:
    """The profile after one more look. Only a steady pool teaches: the same servers for a window, even traffic."""
    profile = profile or Profile(since=now, looked=now)
    if signal.ready != profile.ready:
        return profile.model_copy(
            update={"ready": signal.ready, "since": now, "looked": profile.looked or now}
        )
    p, rps, coming = percentile_ms(target, signal), signal.rps, signal.arrivals_per_s
    if not p or not rps or coming is None or not signal.ready or signal.completed < EVIDENCE:
        return profile
    if now - profile.since < STEADY_S or abs(coming / rps - 1.0) > UNEVEN:
        return profile
    if signal.p50_ms is not None and signal.p50_ms < TRANSIENT * p:
        return profile  # a short burst in an otherwise easy window: it says nothing about the mean load
    load = rps / signal.ready * pooled(signal.ready)
    proven, proven_ms, limit, sums = profile.proven, profile.proven_ms, profile.limit, profile.sums
    if limit is not None:
        limit *= 1.0 + max(0.0, now - profile.looked) / RELAXED_S
    if proven is None:
        proven, proven_ms = load * min(1.0, AIM * target.target_ms / p), min(p, AIM * target.target_ms)
    elif p <= AIM * target.target_ms and load > proven:
        fade = (proven / load) ** SHARPNESS
        sums = tuple(fade * old for old in sums)
        proven, proven_ms = load, p
    if p > target.target_ms:
        late_at = UNDER_LATE * load
        limit = late_at if limit is None else min(limit, limit + EACH_LATE * (late_at - limit))
        proven = min(proven, limit)
    elif limit is not None and p <= AIM * target.target_ms:
        limit = max(limit, load)
    kept = {"proven": proven, "proven_ms": proven_ms, "limit": limit, "looked": now}
    if p > 3 * target.target_ms:
        return profile.model_copy(update=kept)
    weight = min(1.0, load / proven) ** SHARPNESS
    seen = (1.0, load, 1.0 / p, load * load, load / p)
    sums = tuple(FORGET * old + weight * new for old, new in zip(sums, seen, strict=True))
    return profile.model_copy(update={**kept, "sums": sums})
