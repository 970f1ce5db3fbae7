"""weighted: least connections by what each host was seen to carry. PURE.

The capacity is the controller's learned requests/s (Backend.capacity_rps), else what the host's own load reports say:
requests/s over utilization, as gRPC's weighted round robin takes it. A host of which neither is known counts as the
mean of the others.
"""

from __future__ import annotations

from fleet_balancer.member import Member
from fleet_balancer.pick.by_score import ByScore


class Weighted(ByScore):
    """(in flight + 1) / (weight x capacity)."""

    _mean = 1.0

    def score(self, member: Member) -> float:
        return (member.load + 1) / member.share

    def weigh(self, member: Member) -> float:
        capacity = _capacity(member)
        return member.weight * (1.0 if capacity is None else capacity / self._mean)

    def compare(self) -> None:
        known = [one for member in self._members if (one := _capacity(member)) is not None]
        self._mean = sum(known) / len(known) if known else 1.0


def _capacity(member: Member) -> float | None:
    return member.spec.capacity_rps or (None if member.inline is None else member.inline.capacity_rps)
