"""The limits of the data plane: how long it waits and how much it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet_balancer.http.grammar import Limits
from fleet_wire.balancer import BalancerLimits


@dataclass(frozen=True)
class Settings:
    """Seconds and bytes. `upstream_idle_s` stays below the 5 s after which uvicorn closes an idle connection."""

    limits: Limits = field(default_factory=Limits)
    header_timeout_s: float = 5.0
    idle_timeout_s: float = 60.0
    body_timeout_s: float = 30.0
    connect_timeout_s: float = 2.0
    upstream_idle_s: float = 4.0
    tunnel_idle_s: float = 3600.0
    buffer: int = 64 * 1024

    @classmethod
    def of(cls, limits: BalancerLimits) -> Settings:
        """The settings of a balancer that is configured by a file."""
        return cls(
            limits=Limits(
                head=limits.head_bytes,
                target=limits.target_bytes,
                fields=limits.fields,
                body=limits.body_bytes,
            ),
            header_timeout_s=limits.header_timeout_s,
            idle_timeout_s=limits.idle_timeout_s,
            body_timeout_s=limits.body_timeout_s,
            connect_timeout_s=limits.connect_timeout_s,
        )
