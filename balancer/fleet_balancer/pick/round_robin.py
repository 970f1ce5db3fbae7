"""round_robin: everyone in turn, whatever they are doing. PURE."""

from __future__ import annotations

from collections.abc import Collection

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member
from fleet_balancer.pick.by_score import ByScore


class RoundRobin(ByScore):
    """A host of weight 2 comes twice as often: the score is how far along its way a host is (start-time fair queueing).

    `_level` is where the host stood that was picked last. Who is behind it, because he was away or nobody asked for his
    models, goes on from there and does not catch up what he missed.
    """

    _level = 0.0

    def join(self, member: Member) -> None:
        super().join(member)
        member.pace = 0.0

    def score(self, member: Member) -> float:
        return member.pace

    def changed(self, member: Member, now: float | None = None) -> None:
        if member.shelf is None:
            member.pace = max(member.pace, self._level)
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
            self._level = pace = max(member.pace, self._level)
            member.pace = pace + 1.0 / member.share
            self.touch(member)
        return member
