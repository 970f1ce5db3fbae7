"""Keeps the servers' mean utilization at a target share.

desired = ceil(ready x utilization / target), no change while |utilization / target - 1| <= 0.1 (Kubernetes
HPA v2, pkg/controller/podautoscaler/replica_calculator.go). The load is counted in busy servers, so
servers that still start neither hide it nor double it. Without a measurement the count stays.
"""

from __future__ import annotations

import math

from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.words import enough, lasting, number, servers

TOLERANCE = 0.1
MAX_RATIO = 1000.0  # utilization 1 against a target of 0.001


def recommend(target: float, look: Look, tolerance: float = TOLERANCE) -> Recommendation:
    signal, current = look.signal, look.current
    used = signal.utilization
    if used is None or not signal.ready:
        look.timers.keep("utilization over")
        if current and used is None and not signal.ready:
            return _say(current, f"no server is ready, stays at {current}")
        return _say(current, f"no utilization to go by, stays at {current}")
    ratio = used / target
    needed = max(1, math.ceil(signal.ready * min(ratio, MAX_RATIO) - 1e-9))
    over = look.timers.held("utilization over", ratio > 1 + tolerance)
    under = look.timers.held("utilization under", ratio < 1 - tolerance)
    if ratio > 1 + tolerance:
        breach = f"utilization {number(used)} over {number(target)}{lasting(over)}"
        if needed <= current:
            coming = current - signal.ready
            return _say(current, f"{breach}, {servers(coming)} still to come" if coming > 0 else breach)
        return _say(needed, breach)
    if ratio < 1 - tolerance:
        calm = f"utilization {number(used)} under {number(target)}{lasting(under)}"
        return _say(needed, f"{calm}, {enough(needed)}") if needed < current else _say(current, calm)
    return _say(current, f"utilization {number(used)} is at its target {number(target)}")


def _say(desired: int, reason: str) -> Recommendation:
    return Recommendation(policy="utilization", desired=desired, reason=reason)
