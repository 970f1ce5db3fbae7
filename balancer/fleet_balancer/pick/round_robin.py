"""round_robin: everyone in turn, whatever they are doing. PURE."""

from __future__ import annotations

from collections.abc import Collection

from fleet_balancer.ask import Ask
from fleet_balancer.member import Member
from fleet_balancer.pick.by_score import ByScore


class RoundRobin(ByScore):
    """A host of weight 2 comes twice as often (stride scheduling): the score is how far along its way a host is."""

    def join(self, member: Member) -> None:
        super().join(member)
        member.pace = 0.0

    def score(self, member: Member) -> float:
        return member.pace

    def changed(self, member: Member, now: float | None = None) -> None:
        if member.shelf is None:
            # A host that joins or comes back starts level with the others, and does not catch up what it missed.
            tops = [top.pace for shelf in self._shelves.values() if (top := shelf.first()) is not None]
            member.pace = max(member.pace, min(tops, default=0.0))
        super().changed(member, now)

    def touch(self, member: Member) -> None:
        """Only room matters here: a member that keeps it keeps its place, until its turn came."""
        if member.bucket is None or member.score != member.pace or member.full:
            super().touch(member)
        else:
            member.load = member.in_flight + member.elsewhere + member.foreign

    def pick(
        self, model: str | None, now: float, tried: Collection[Member] = (), ask: Ask | None = None
    ) -> Member | None:
        member = super().pick(model, now, tried, ask)
        if member is not None:
            member.pace += 1.0 / member.share
            self.touch(member)
        return member
