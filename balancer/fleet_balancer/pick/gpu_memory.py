"""gpu_memory: least connections, where a host short of device memory counts as up to four times as loaded. PURE.

That a host without room for a request's model gets none of its requests holds in every policy (Kind.lacking).
"""

from __future__ import annotations

from fleet_balancer.member.member import Member
from fleet_balancer.pick.least_connections import LeastConnections
from fleet_balancer.pick.report import scarcity


class GpuMemory(LeastConnections):
    """(in flight + 1) / share x scarcity; the scarcity is part of the share, for it changes only with reports."""

    def weigh(self, member: Member) -> float:
        return super().weigh(member) / scarcity(member, self._stale_s)
