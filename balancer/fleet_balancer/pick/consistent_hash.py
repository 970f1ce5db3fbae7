"""consistent_hash: one session's requests go to one host, while that is not much busier than the others. PURE.

Each host has points on a ring, a session goes to the next point: when a host leaves, only its sessions move. A host
that has more than 1.25 times its share of the pool's requests in flight is passed over until it has fewer (Mirrokni,
Thorup, Zadimoghaddam 2016). The points depend on names only: every worker and every balancer finds the same host.
Requests without a session take least connections. Zones are ignored: a session must not depend on who was asked.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from itertools import islice
from math import ceil
from struct import Struct

from fleet_balancer.ask import Ask
from fleet_balancer.member import Member
from fleet_balancer.pick.least_connections import LeastConnections
from fleet_balancer.pick.picker import Shelves
from fleet_balancer.shelf import Shelf

BOUND = 1.25
# A digest gives eight points; a host of weight 1 has five digests.
DIGESTS = 5
MOST_DIGESTS = 50
_POINTS = Struct(">8Q")
# Points looked at before the session is given up and the least busy host takes it.
_STEPS = 256


class ConsistentHash(LeastConnections):
    """The ring holds all members; those that may not be picked now are passed over."""

    _points: list[int] = []
    _owners: list[Member] = []
    _total = 0
    _weight = 0.0
    _rings: tuple[tuple[str, float], ...] = ()

    def compare(self) -> None:
        ring = tuple((m.name, m.weight) for m in self._members)
        if ring == self._rings and all(m.watcher is self for m in self._owners[:1]):
            owners = {m.name: m for m in self._members}
            self._owners = [owners[m.name] for m in self._owners]
            return
        self._rings = ring
        both = sorted((point, i) for i, member in enumerate(self._members) for point in points_of(member))
        self._points = [point for point, _ in both]
        self._owners = [self._members[i] for _, i in both]

    def weigh(self, member: Member) -> float:
        return member.weight

    def observed(self, member: Member, model: str | None, latency_ms: float, depth: int, now: float) -> None:
        """Speed would move the bound, and with it sessions."""

    def split(self, shelves: list[Shelf[Member]]) -> tuple[Shelves, Shelves]:
        return tuple(shelves), ()

    def touch(self, member: Member) -> None:
        super().touch(member)
        if member.shelf is not None:
            self._total += member.load - member.counted
            self._weight += member.weight - member.pace
            member.counted = member.load
            member.pace = member.weight

    def leave(self, member: Member) -> None:
        if member.shelf is not None:
            self._total -= member.counted
            self._weight -= member.pace
            member.counted = 0
            member.pace = 0.0
        super().leave(member)

    def join(self, member: Member) -> None:
        super().join(member)
        member.counted = 0
        member.pace = 0.0

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        session = None if ask is None else ask.session
        if session is None or not self._points:
            return super().best(shelves, ask)
        point = int.from_bytes(blake2b(session, digest_size=8).digest(), "big")
        at = bisect_right(self._points, point)
        owners = self._owners
        each = BOUND * (self._total + 1) / self._weight
        for start, stop in ((at, at + _STEPS), (0, at + _STEPS - len(owners))):
            for member in islice(owners, start, max(start, stop)):
                if (
                    member.bucket is not None
                    and member.shelf in shelves
                    and member.load < ceil(each * member.weight)
                ):
                    return member
        return super().best(shelves, ask)


def points_of(member: Member) -> list[int]:
    """Where a member stands on the ring; a host of twice the weight stands there twice as often."""
    digests = max(1, min(MOST_DIGESTS, round(DIGESTS * member.weight)))
    name = member.name.encode()
    return [point for i in range(digests) for point in _POINTS.unpack(blake2b(b"%d %b" % (i, name)).digest())]
