"""Keeps the number of waiting requests per server at a target.

Up: ceil(queued / target) (Kubernetes HPA AverageValue: ceil(total / target)), at most twice the ready
servers: a backlog is work that was left over, not load that stays. Down: a queue says that there is too
little, never how much is too much, so one server goes at a time, while the queue is under half its target
and utilization, where it is known, leaves the smaller pool under 0.75.
"""

from __future__ import annotations

import math

from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.words import enough, lasting, number, servers
from fleet_controller.spec.scaling import QueueTarget

TOLERANCE = 0.1
MAX_RAISE = 2
LOWER_SHARE = 0.5
LOWER_UTILIZATION = 0.75


def recommend(target: QueueTarget, look: Look, tolerance: float = TOLERANCE) -> Recommendation:
    signal, current = look.signal, look.current
    if signal.queued is None:
        look.timers.keep("queue over")
        return _say(current, f"no queue length to go by, stays at {current}")
    ready = max(1, signal.ready)
    each = signal.queued / ready
    per_server = f"{number(each)} requests wait per server"
    limit = number(target.target_per_server)
    high = each > target.target_per_server * (1 + tolerance)
    over = look.timers.held("queue over", high)
    if high:
        needed = math.ceil(min(signal.queued / target.target_per_server, MAX_RAISE * ready))
        breach = f"{per_server}, over {limit}{lasting(over)}"
        if needed <= current:
            coming = current - signal.ready
            return _say(current, f"{breach}, {servers(coming)} still to come" if coming > 0 else breach)
        return _say(needed, breach)
    low = each < target.target_per_server * LOWER_SHARE
    under = look.timers.held("queue under", low)
    fewer = max(1, min(current, ready) - 1)
    then = signal.utilization * signal.ready / fewer if signal.utilization is not None else None
    if low and fewer < current and (then is None or then <= LOWER_UTILIZATION):
        return _say(fewer, f"{per_server}, under {limit}{lasting(under)}, {enough(fewer)}")
    return _say(current, f"{per_server}, {limit} may")


def _say(desired: int, reason: str) -> Recommendation:
    return Recommendation(policy="queue", desired=desired, reason=reason)
