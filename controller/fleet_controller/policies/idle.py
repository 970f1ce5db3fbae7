"""Scales to zero after a time without any request, and wakes for the first one. Opt-in.

As KEDA's cooldownPeriod (only N -> 0, counted from the last activity) and Knative's scale to zero: a timer
of its own, which cooldowns and stabilization do not lengthen. Only known silence counts; a signal that
says nothing resets it.
"""

from __future__ import annotations

from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.words import number, span
from fleet_controller.spec.scaling import Idle


def idle_since(since: float | None, look: Look, fresh: bool) -> float | None:
    """Since when the pool has been idle, Unix seconds; None: it isn't, or can't be known to be."""
    if fresh and look.busy:
        return None
    if fresh and look.quiet:
        return look.now if since is None else since
    return since if look.current == 0 else None  # asleep and blind: sleep on; awake and blind: no


def recommend(idle: Idle, since: float | None, look: Look) -> Recommendation:
    if look.current == 0 and look.busy:
        waiting = look.signal.queued or look.signal.in_flight or 0
        count = f"{number(waiting)} waiting" if waiting else "requests come in"
        return Recommendation(policy="idle", desired=1, reason=f"wakes: {count} and no server runs")
    if since is None:
        return Recommendation(policy="idle", desired=None, reason="not idle")
    if look.now - since < idle.after:
        quiet, left = span(look.now - since), span(idle.after - (look.now - since))
        return Recommendation(policy="idle", desired=None, reason=f"idle for {quiet}, sleeps in {left}")
    return Recommendation(policy="idle", desired=0, reason=f"no requests for {span(look.now - since)}")
