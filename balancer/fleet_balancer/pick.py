"""Which host gets the next request. PURE: each policy is a score, the lowest wins, equal scores take turns.

Scores live in a heap that is corrected where a host changes, so that a pick costs the same with 3 hosts and with
10,000. An entry is out of date once its host has a newer turn; it is dropped where it comes up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Protocol

from fleet_balancer.member import Member
from fleet_wire.balancer import Routing

# Below this share of free device memory, gpu_memory begins to prefer other hosts; with none free, a host counts as
# FULL_PENALTY times as loaded. It is a ramp and never an exclusion: who has no room is the pool's decision.
SCARCE_SHARE = 0.25
FULL_PENALTY = 4.0

Refuses = Callable[[Member], bool]


class Picker(Protocol):
    """Chooses among the members it was last given."""

    def reset(self, members: Iterable[Member]) -> None:
        """These, and only these, may be picked from now on."""

    def pick(self, refuses: Refuses | None) -> Member | None:
        """The best member that `refuses` is false for; None where there is none."""


class Lowest:
    """Picks the lowest `score`; among equals the one that changed longest ago."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Member]] = []
        self._members: list[Member] = []
        self._turn = 0
        self._most = 64

    def score(self, member: Member) -> float:
        raise NotImplementedError

    def reset(self, members: Iterable[Member]) -> None:
        for member in self._members:
            if member.watcher is self:
                member.watcher = None
        self._members = sorted(members, key=lambda m: m.turn)
        self._most = 64 + 4 * len(self._members)
        for member in self._members:
            member.watcher = self
        self._rebuild()

    def touch(self, member: Member) -> None:
        self._turn = member.turn = self._turn + 1
        entry = (self.score(member), self._turn, member)
        heap = self._heap
        if heap and heap[0][2] is member:
            heapreplace(heap, entry)
        else:
            heappush(heap, entry)
            if len(heap) > self._most:
                self._rebuild()

    def pick(self, refuses: Refuses | None) -> Member | None:
        heap = self._heap
        aside: list[tuple[float, int, Member]] = []
        best = None
        while heap:
            entry = heap[0]
            member = entry[2]
            if member.turn == entry[1] and member.watcher is self:
                if refuses is None or not refuses(member):
                    best = member
                    break
                aside.append(entry)
            heappop(heap)
        for entry in aside:
            heappush(heap, entry)
        return best

    def _rebuild(self) -> None:
        self._heap.clear()
        for member in sorted(self._members, key=lambda m: m.turn):
            self._turn = member.turn = self._turn + 1
            self._heap.append((self.score(member), self._turn, member))
        heapify(self._heap)


class LeastConnections(Lowest):
    """The host with the fewest requests in flight for its weight, this request included."""

    def score(self, member: Member) -> float:
        return (member.in_flight + 1) / member.weight


class GpuMemory(Lowest):
    """Least connections, where a host short of device memory counts as more loaded. Unknown memory is not scarce."""

    def score(self, member: Member) -> float:
        return (member.in_flight + 1) / member.weight * scarcity(member)


class RoundRobin(Lowest):
    """Everyone in turn; a host of weight 2 comes twice as often (stride scheduling)."""

    def reset(self, members: Iterable[Member]) -> None:
        members = list(members)
        # A host that joins or comes back starts level with the others, and does not catch up what it missed.
        level = min((m.pace for m in members if m.watcher is self), default=0.0)
        for member in members:
            if member.watcher is not self:
                member.pace = max(member.pace, level)
        super().reset(members)

    def score(self, member: Member) -> float:
        return member.pace

    def pick(self, refuses: Refuses | None) -> Member | None:
        member = super().pick(refuses)
        if member is not None:
            member.pace += 1.0 / member.weight
        return member


class PowerOfTwo:
    """The better of two hosts drawn at random: nearly as even as looking at all, and never a herd."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._members: list[Member] = []

    def reset(self, members: Iterable[Member]) -> None:
        self._members = list(members)

    def pick(self, refuses: Refuses | None) -> Member | None:
        members = self._members
        if refuses is not None:
            members = [m for m in members if not refuses(m)]
        if len(members) < 2:
            return members[0] if members else None
        one, two = self._rng.sample(members, 2)
        return one if (one.in_flight + 1) / one.weight <= (two.in_flight + 1) / two.weight else two


def scarcity(member: Member) -> float:
    """1 while a quarter of the device memory is free or nothing is known, rising to FULL_PENALTY with none free."""
    report = member.report
    if report is None or report.used is None or not report.total:
        return 1.0
    free = max(0.0, 1.0 - report.used / report.total)
    return 1.0 if free >= SCARCE_SHARE else 1.0 + (FULL_PENALTY - 1.0) * (1.0 - free / SCARCE_SHARE)


def picker_for(routing: Routing, rng: random.Random) -> Picker:
    """The policy by its name in fleet.yaml."""
    match routing:
        case "least_connections":
            return LeastConnections()
        case "gpu_memory":
            return GpuMemory()
        case "round_robin":
            return RoundRobin()
        case "power_of_two":
            return PowerOfTwo(rng)
