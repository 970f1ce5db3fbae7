"""consistent_hash: one session's requests go to one host, while that is not much busier than the others. PURE.

Each host has points on a ring, a session goes to the next point: when a host leaves, only its sessions move. A host
that has more than 1.25 times its share of the pool's requests in flight is passed over until it has fewer (Mirrokni,
Thorup, Zadimoghaddam 2016). The points depend on names only: every worker and every balancer finds the same host.
Requests without a session take least connections. Zones are ignored: a session must not depend on who was asked.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from math import inf
from struct import Struct

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member
from fleet_balancer.member.shelf import Shelf
from fleet_balancer.pick.least_connections import LeastConnections
from fleet_balancer.pick.picker import Shelves

BOUND = 1.25
# A digest gives eight points; a host of weight 1 has three digests.
DIGESTS = 3
MOST_DIGESTS = 30
OWNER = (1 << 20) - 1
_POINTS = Struct(">8Q")
# Points looked at before the session is given up and the least busy host takes it.
_STEPS = 64


class ConsistentHash(LeastConnections):
    """The ring holds all members; those that may not be picked now are passed over. `_loads` (load / weight, in the
    members' order, infinite without room) says so in one place: to look at each member would cost several times more.

    `_first[h]` is the place of the first point at or after the h-th part of the ring: as many parts as points, so that
    a session's point is found in a step or two.
    """

    _points = array("Q")
    _loads = array("d")
    _first = array("L")
    _shift = 64
    _ring: tuple[tuple[str, float], ...] = ()

    def compare(self) -> None:
        ring = tuple((m.name, m.weight) for m in self._members)
        for i, member in enumerate(self._members):
            member.draw_at = i
        self._loads = array("d", [inf]) * len(ring)
        if ring == self._ring:
            return
        self._ring = ring
        # The owner's number stands in a point's lowest bits: plain integers sort several times faster than pairs.
        ring_points = [
            point & ~OWNER | i for i, member in enumerate(self._members) for point in points_of(member)
        ]
        ring_points.sort()
        self._points = points = array("Q", ring_points)
        bits = len(points).bit_length()
        self._shift = shift = 64 - bits
        self._first = first = array("L", [len(points)]) * (1 << bits)
        filled = 0
        for at, point in enumerate(points):
            part = point >> shift
            while filled <= part:
                first[filled] = at
                filled += 1

    def weigh(self, member: Member) -> float:
        return member.weight

    def observed(self, member: Member, model: str | None, latency_ms: float, depth: int, now: float) -> None:
        """Speed would move the bound, and with it sessions."""

    def split(self, shelves: list[Shelf[Member]]) -> tuple[Shelves, Shelves]:
        return tuple(shelves), ()

    def touch(self, member: Member) -> None:
        super().touch(member)
        shelf = member.shelf
        if shelf is None or member.draw_at is None:
            return
        load, weight = member.load, member.weight
        shelf.load += load - member.counted
        member.counted = load
        if member.pace != weight:
            shelf.weight += weight - member.pace
            member.pace = weight
        self._loads[member.draw_at] = inf if member.bucket is None else load / weight

    def leave(self, member: Member) -> None:
        shelf = member.shelf
        if shelf is not None:
            shelf.load -= member.counted
            shelf.weight -= member.pace
            if member.draw_at is not None:
                self._loads[member.draw_at] = inf
        member.counted = 0
        member.pace = 0.0
        super().leave(member)

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        session = None if ask is None else ask.session
        if session is None or not shelves or not self._points:
            return super().best(shelves, ask)
        if len(shelves) == 1:
            load, weight = shelves[0].load, shelves[0].weight
        else:
            load = sum(shelf.load for shelf in shelves)
            weight = sum(shelf.weight for shelf in shelves)
        each = BOUND * (load + 1) / weight if weight > 0 else 0.0
        points, loads = self._points, self._loads
        point = int.from_bytes(blake2b(session, digest_size=8).digest(), "big")
        at = self._first[point >> self._shift]
        size = len(points)
        while at < size and points[at] < point:
            at += 1
        for _ in range(min(_STEPS, size)):
            if at == size:
                at = 0
            owner = points[at] & OWNER
            # Whole requests: the bound is rounded up, so that there is always somebody below it.
            if loads[owner] < each:
                member = self._members[owner]
                if member.bucket is not None and member.shelf in shelves:
                    return member
            at += 1
        return super().best(shelves, ask)


def points_of(member: Member) -> list[int]:
    """Where a member stands on the ring; a host of twice the weight stands there twice as often."""
    digests = max(1, min(MOST_DIGESTS, round(DIGESTS * member.weight)))
    name = member.name.encode()
    return [point for i in range(digests) for point in _POINTS.unpack(blake2b(b"%d %b" % (i, name)).digest())]
