"""A surge that the ready servers can't carry is answered at once, as in Knative's panic mode.

Panic begins when what comes in now (the last 15 s) needs `threshold` times the ready servers (Knative: 200 %) and it
shows: more waits than they complete in two seconds. From then on neither cooldown nor stabilization delays the way up,
and nothing is removed until `window` after the last such moment (Knative: the stable window).

A busy device can't show by its utilization how much is missing: at 1.0 it may lack a tenth or nine tenths. So the
number comes from the arrivals and from what a server was seen to complete while busy, at most four times the ready
servers: a device that batches completes more under a surge than it has shown before. Pools with a forecast don't need
it: their number counts the servers on their way and waits for nothing.
"""

from __future__ import annotations

import math

from fleet_controller.policies.decision import Recommendation
from fleet_controller.policies.words import number, servers
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import Signal

SHARE = 0.7  # of a server's time where the file names no target_utilization
WAITING_S = 2.0  # what waits is more than the ready servers complete in this time
MAX_RAISE = 4


def recommend(spec: ScalingSpec, signal: Signal) -> Recommendation | None:
    """What a surge needs; None while there is none, or nothing to know it by."""
    if not spec.panic.enabled or (spec.target_utilization is None and spec.queue is None):
        return None
    coming, each, waiting = signal.arrivals_per_s, signal.capacity_rps_per_server, signal.queued
    ready = max(1, signal.ready)
    if not coming or not each or waiting is None or waiting <= each * ready * WAITING_S:
        return None
    needed = math.ceil(min(coming / (each * (spec.target_utilization or SHARE)), 1e6))
    if needed < spec.panic.threshold * ready:
        return None
    seen = f"{number(coming)} requests/s with {number(waiting)} waiting"
    reason = f"panic: {seen} would keep {servers(needed)} busy, {signal.ready} ready"
    return Recommendation(policy="panic", desired=min(needed, MAX_RAISE * ready), reason=reason)


def left_s(spec: ScalingSpec, panic_at: float | None, now: float) -> float:
    """Seconds for which nothing is removed because of the last panic."""
    return 0.0 if panic_at is None else max(0.0, panic_at + spec.panic.window - now)
