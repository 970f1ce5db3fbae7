"""response_time: the lowest expected wait, by peak EWMA (Finagle, Linkerd). PURE.

A host's cost is a moving average of its latency that jumps up at once and comes down slowly; the score is cost x
(in flight + 1) / weight. The cost also falls with time alone, so that a host that is avoided is tried again. All costs
fall at one rate, so their order changes only when something happens: the score is the logarithm of the cost plus
when it was true, and nothing has to be computed again as time passes.
"""

from __future__ import annotations

from math import exp, floor, log

from fleet_balancer.member.member import Member
from fleet_balancer.pick.by_score import ByScore

# Seconds in which a cost falls to 1/e.
DECAY_S = 10.0
# Scores this close are equal and take turns.
STEP = 0.05


class ResponseTime(ByScore):
    """log cost + its time / DECAY_S + log((in flight + 1) / share), in steps."""

    _level_ms = 1.0

    def join(self, member: Member) -> None:
        super().join(member)
        member.cost_ms = 0.0

    def score(self, member: Member) -> float:
        if not member.cost_ms:
            # Nothing is known of it: it begins as the pool's usual host.
            member.cost_ms = self._level_ms
            member.cost_at = self._now
        cost = log(member.cost_ms * (member.load + 1) / member.share) + member.cost_at / DECAY_S
        return floor(cost / STEP)

    def prefers(self, local: Member, other: Member) -> bool:
        return local.score <= other.score + log(2.0) / STEP

    def observed(self, member: Member, model: str | None, latency_ms: float, depth: int, now: float) -> None:
        latency_ms = max(latency_ms, 0.001)
        self._level_ms *= (latency_ms / self._level_ms) ** 0.02
        kept = exp((member.cost_at - now) / DECAY_S)
        decayed = member.cost_ms * kept
        member.cost_ms = latency_ms if latency_ms >= decayed else decayed + latency_ms * (1.0 - kept)
        member.cost_at = now
