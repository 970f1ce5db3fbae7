"""least_connections: the host with the fewest requests in flight for its share, this request included. PURE.

Its share is its weight times how fast it has shown itself (see speed.py): in an even fleet that is plain least
connections; a host of twice the speed gets twice the requests without anybody having said so. A host that is stuck, on
a large request or for good, counts as deeper by what it would usually have finished since (see progress.py).
"""

from __future__ import annotations

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member
from fleet_balancer.pick.by_score import ByScore
from fleet_balancer.pick.picker import Shelves
from fleet_balancer.pick.progress import LOOKS, USUAL, overdue, progressed
from fleet_balancer.pick.speed import Speeds
from fleet_wire.balancer import PoolConfig

# A host's speed is learned from one answer in so many seconds: from thousands a second nothing more would follow.
LEARN_S = 0.002


class LeastConnections(ByScore):
    """(in flight + stuck + 1) / share."""

    def __init__(self, config: PoolConfig, stale_s: float, zone: str | None = None) -> None:
        super().__init__(config, stale_s, zone)
        self._speeds = Speeds()

    def score(self, member: Member) -> float:
        return (member.load + member.stuck + 1) / member.share

    def weigh(self, member: Member) -> float:
        return member.weight * member.speed

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        """The lowest score; who is found to be stuck gets the score for it and is looked at again."""
        now = self._now
        for _ in range(LOOKS):
            member = super().best(shelves, ask)
            if member is None:
                return None
            if not member.in_flight:
                member.progress_at = now
                return member
            if now - member.progress_at <= USUAL * member.round_s:
                return member  # what overdue() says first
            stuck = overdue(member, now)
            if stuck <= 1.5 * member.stuck:
                return member
            member.stuck = stuck
            self.touch(member)
        return super().best(shelves, ask)

    def observed(self, member: Member, model: str | None, latency_ms: float, depth: int, now: float) -> None:
        if now < member.learn_at:
            member.progress_at = now
            if member.stuck:
                member.stuck = 0.0
            return
        member.learn_at = now + LEARN_S
        progressed(member, now)
        if self._speeds.learn(member, model, latency_ms, depth):
            member.share = self.weigh(member) * member.ramp
