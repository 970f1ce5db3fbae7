"""power_of_two: the better of two hosts drawn at random. PURE.

Nearly as even as looking at all of them (Mitzenmacher 2001), and several balancers that don't know of each other never
rush to the same host.
"""

from __future__ import annotations

import random

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member
from fleet_balancer.member.shelf import Shelf
from fleet_balancer.pick.picker import Picker, Shelves
from fleet_wire.balancer import PoolConfig


class PowerOfTwo(Picker):
    """Draws two different members that have room; fewer requests in flight for its share wins."""

    def __init__(
        self, config: PoolConfig, stale_s: float, zone: str | None = None, *, rng: random.Random
    ) -> None:
        super().__init__(config, stale_s, zone)
        self._random = rng.random

    def touch(self, member: Member) -> None:
        """Only room matters here: a member that keeps it keeps its place."""
        if member.shelf is None:
            return
        member.load = load = member.in_flight + member.elsewhere + member.foreign
        room = member.limit is None or load < member.limit
        if room and member.draw_at is None:
            member.draw_at = len(member.shelf.draw)
            member.shelf.draw.append(member)
        elif not room:
            self.unseat(member, member.shelf)

    def unseat(self, member: Member, shelf: Shelf[Member]) -> None:
        slot = member.draw_at
        if slot is not None:
            last = shelf.draw.pop()
            if last is not member:
                shelf.draw[slot] = last
                last.draw_at = slot
            member.draw_at = None

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        size = sum(len(shelf.draw) for shelf in shelves)
        if not size:
            return None
        first = int(self._random() * size)
        one = _at(shelves, first)
        if size == 1:
            return one
        second = int(self._random() * (size - 1))
        two = _at(shelves, second if second < first else second + 1)
        return one if (one.load + 1) * two.share <= (two.load + 1) * one.share else two


def _at(shelves: Shelves, place: int) -> Member:
    for shelf in shelves:
        if place < len(shelf.draw):
            return shelf.draw[place]
        place -= len(shelf.draw)
    raise IndexError(place)
