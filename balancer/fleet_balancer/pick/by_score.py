"""Policies that are a score: the lowest wins, equal scores take turns. PURE."""

from __future__ import annotations

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member
from fleet_balancer.member.shelf import Shelf
from fleet_balancer.pick.picker import Picker, Shelves


class ByScore(Picker):
    """Picks the lowest score(member), as it was when the member last changed."""

    def score(self, member: Member) -> float:
        raise NotImplementedError

    def seat(self, member: Member, shelf: Shelf[Member]) -> None:
        score = self.score(member)
        bucket = shelf.buckets.get(score)
        if bucket is None:
            bucket = shelf.open(score)
        bucket[member] = None
        member.bucket = bucket
        member.score = score

    def unseat(self, member: Member, shelf: Shelf[Member]) -> None:
        bucket = member.bucket
        if bucket is not None:
            del bucket[member]
            member.bucket = None

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        best = None
        for shelf in shelves:
            member = shelf.first()
            if member is not None and (best is None or (member.score, member.turn) < (best.score, best.turn)):
                best = member
        return best
