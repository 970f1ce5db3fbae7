"""weighted: least connections by what each host was seen to carry. PURE.

The capacity is the controller's learned requests/s (Backend.capacity_rps), else what the host's own load reports say:
requests/s over utilization, as gRPC's weighted round robin takes it. A host of which neither is known counts as the
mean of the others.
"""

from __future__ import annotations

from fleet_balancer.member.member import Member
from fleet_balancer.pick.by_score import ByScore

# How many reports the mean remembers, and how far it may move before all shares are set anew.
MEMORY = 64
DRIFT = 1.1


class Weighted(ByScore):
    """(in flight + 1) / (weight x capacity / mean capacity)."""

    _mean = 1.0
    _latest = 1.0
    _known = 0

    def score(self, member: Member) -> float:
        return (member.load + 1) / member.share

    def weigh(self, member: Member) -> float:
        capacity = _capacity(member)
        return member.weight * (1.0 if capacity is None else capacity / self._mean)

    def compare(self) -> None:
        known = [one for member in self._members if (one := _capacity(member)) is not None]
        self._known = min(MEMORY, len(known))
        self._mean = self._latest = sum(known) / len(known) if known else 1.0

    def changed(self, member: Member, now: float | None = None) -> None:
        inline = member.inline
        if inline is not None and inline.capacity_rps is not None and member.spec.capacity_rps is None:
            self._known = min(MEMORY, self._known + 1)
            self._latest += (inline.capacity_rps - self._latest) / self._known
            if not self._mean / DRIFT < self._latest < self._mean * DRIFT:
                self._mean = self._latest
                for other in self._members:
                    other.share = self.weigh(other) * other.ramp
                    self.touch(other)
        super().changed(member, now)


def _capacity(member: Member) -> float | None:
    return member.spec.capacity_rps or (None if member.inline is None else member.inline.capacity_rps)
