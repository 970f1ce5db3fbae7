"""least_connections: the host with the fewest requests in flight for its share, this request included. PURE.

Its share is its weight times how fast it has shown itself (see speed.py): in an even fleet that is plain least
connections; a host of twice the speed gets twice the requests without anybody having said so.
"""

from __future__ import annotations

from fleet_balancer.member import Member
from fleet_balancer.pick.by_score import ByScore
from fleet_balancer.pick.speed import Speeds
from fleet_wire.balancer import PoolConfig


class LeastConnections(ByScore):
    """(in flight + 1) / share."""

    def __init__(self, config: PoolConfig, stale_s: float, zone: str | None = None) -> None:
        super().__init__(config, stale_s, zone)
        self._speeds = Speeds()

    def score(self, member: Member) -> float:
        return (member.load + 1) / member.share

    def weigh(self, member: Member) -> float:
        return member.weight * member.speed

    def observed(self, member: Member, model: str | None, latency_ms: float, depth: int, now: float) -> None:
        if self._speeds.learn(member, model, latency_ms, depth):
            member.share = self.weigh(member) * member.ramp
