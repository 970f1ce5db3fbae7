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

    def unseat(self, member: Member, shelf: Shelf[Member]) -> None:
        bucket = member.bucket
        if bucket is not None:
            del bucket[member]
            member.bucket = None

    def touch(self, member: Member) -> None:
        """In one piece: this runs twice for each request."""
        shelf = member.shelf
        if shelf is None:
            return
        bucket = member.bucket
        if bucket is not None:
            del bucket[member]
        member.load = load = member.in_flight + member.elsewhere + member.foreign
        limit = member.limit
        if limit is not None and load >= limit:
            member.bucket = None
            return
        self._turn = member.turn = self._turn + 1
        member.score = score = self.score(member)
        bucket = shelf.buckets.get(score)
        if bucket is None:
            bucket = shelf.open(score)
        bucket[member] = None
        member.bucket = bucket

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        if len(shelves) == 1:
            return shelves[0].first()
        best = None
        for shelf in shelves:
            member = shelf.first()
            if member is not None and (best is None or (member.score, member.turn) < (best.score, best.turn)):
                best = member
        return best
