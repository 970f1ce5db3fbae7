"""Keeps a latency percentile under its target: raises in proportion, lowers only where the smaller pool
would still fit.

Up: ceil(ready x min(p / target, 2)), at least one more than ready. The ratio is Kubernetes HPA's (desired
= ceil(current x metric / target)); capped, because latency runs away from load near saturation and says
nothing about how much is missing. Servers that still start count: nothing is added for what they will
carry.
Down: M servers must be predicted under 0.8 x target with utilization under 0.75, where the M/M/1 sojourn
time 1 / (1 - u) carries the percentile from this utilization to that of M servers. Where no utilization is
known the percentile is taken to grow with the load per server, and one server goes at a time.
"""

from __future__ import annotations

import math

from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.predictive import Capacity
from fleet_controller.policies.words import enough, lasting, ms, number, servers
from fleet_controller.spec.scaling import LatencyTarget
from fleet_controller.window import Signal

MAX_RAISE = 2.0
LOWER_SHARE = 0.8
LOWER_UTILIZATION = 0.75
WORKED_OFF = 1.05  # answers for each request that comes
PATIENCE_S = 90.0  # a breach at a load that should be fine, before one server more is tried
EVIDENCE = 10  # so many requests make a percentile worth a server


def recommend(target: LatencyTarget, look: Look, can: Capacity | None = None) -> Recommendation:
    signal, current, timers = look.signal, look.current, look.timers
    name, p = _percentile(target.percentile, signal)
    if p is None:
        timers.keep("latency over")
        if look.quiet:
            return _say(
                min(current, 1), f"no requests, {enough(1)}" if current else "no requests, no servers"
            )
        return _say(current, f"no {name} to go by, stays at {current}")
    limit = f"{ms(target.target_ms)}"
    over = timers.held("latency over", p > target.target_ms)
    if p > target.target_ms:
        breach = f"{name} {ms(p)} over {limit}{lasting(over)}"
        if 0 < signal.completed < EVIDENCE and signal.completed + (signal.queued or 0) < EVIDENCE:
            return _say(current, f"{breach}, but from only {signal.completed} requests")
        if can is not None and signal.arrivals_per_s is not None:
            return _known(look, can, breach, over)
        share = min(p / target.target_ms, MAX_RAISE)
        wanted = max(signal.ready + 1, math.ceil(signal.ready * share))
        if wanted <= current:
            coming = current - signal.ready
            return _say(current, f"{breach}, {servers(coming)} still to come")
        return _say(wanted, breach)
    under = timers.held("latency under", True)
    calm = f"{name} {ms(p)} under {limit}{lasting(under)}"
    if can is not None and signal.arrivals_per_s is not None:
        enough_now = can.servers(signal.arrivals_per_s)
        return _say(
            min(enough_now, current), f"{calm}, {enough(enough_now)}" if enough_now < current else calm
        )
    fits = _fewest(target, signal, p, min(signal.ready, current))
    if fits is None or fits >= current:
        return _say(current, calm)
    return _say(fits, f"{calm}, {enough(fits)}")


def _known(look: Look, can: Capacity, breach: str, over: float) -> Recommendation:
    """Late although it is known what a server can carry: too few for the load, or a backlog that is worked off, or
    servers that do less than was learned.
    """
    signal, current = look.signal, look.current
    coming = signal.arrivals_per_s or 0.0
    needed = can.servers(coming)
    if needed > signal.ready:
        if needed > current:
            return _say(needed, f"{breach}, {number(coming)} requests/s need {servers(needed)}")
        return _say(current, f"{breach}, {servers(current - signal.ready)} still to come")
    if (signal.rps or 0.0) > WORKED_OFF * coming:
        return _say(current, f"{breach}, a backlog is being worked off")
    if over > PATIENCE_S and current <= signal.ready:
        return _say(
            current + 1, f"{breach}, although {servers(needed)} should carry {number(coming)} requests/s"
        )
    return _say(current, breach)


def _say(desired: int, reason: str) -> Recommendation:
    return Recommendation(policy="latency", desired=desired, reason=reason)


def _percentile(percentile: float, signal: Signal) -> tuple[str, float | None]:
    """The percentile that is asked for, or the next stricter one that the signal carries."""
    known = {50.0: signal.p50_ms, 95.0: signal.p95_ms, 99.0: signal.p99_ms}
    if percentile in known:
        return f"p{percentile:g}", known[percentile]
    if signal.percentile_ms is not None:
        return f"p{percentile:g}", signal.percentile_ms
    stricter = min((p for p in known if p >= percentile), default=99.0)
    return f"p{stricter:g}", known[stricter]


def _fewest(target: LatencyTarget, signal: Signal, p: float, servers_now: int) -> int | None:
    """The smallest pool predicted to keep the promise with room to spare; None: no smaller one."""
    room = LOWER_SHARE * target.target_ms
    if servers_now < 2:
        return None
    if signal.utilization is None:
        fewer = servers_now - 1
        return fewer if p * signal.ready / fewer <= room else None
    for fewer in range(1, servers_now):
        then = signal.utilization * signal.ready / fewer
        if then <= LOWER_UTILIZATION and p * (1 - signal.utilization) / (1 - then) <= room:
            return fewer
    return None
