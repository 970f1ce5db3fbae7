"""The `traffic:` block of a pool: how its requests are spread, tried again, and kept from hosts that fail them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from fleet_controller.spec.duration import Duration, PositiveDuration
from fleet_controller.spec.part import Part
from fleet_controller.spec.share import Share
from fleet_wire.balancer import Retry

_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}", re.ASCII)
# The balancer reads or replaces these itself, or they hold secrets.
_TAKEN = {"host", "content-length", "transfer-encoding", "connection", "authorization", "x-api-key"}


def _header(value: str) -> str:
    if not _FIELD_NAME.fullmatch(value):
        raise ValueError(f'"{value[:60]}" cannot be the name of a header; write it like "x-session-id"')
    if value.lower() in _TAKEN:
        raise ValueError(f'the header "{value}" has a meaning of its own; use another one, as "x-session-id"')
    return value.lower()


Header = Annotated[str, AfterValidator(_header)]


class EjectionSpec(Part):
    """When a host that passes its health checks but fails requests is taken out for a while."""

    enabled: bool = Field(default=True, description="Take such hosts out.")
    consecutive_5xx: int = Field(
        default=5, ge=1, le=1000, description="Answers of 500 and above in a row that take a host out."
    )
    latency_factor: float | None = Field(
        default=5.0,
        gt=1,
        description="A host this many times slower than the pool's median host is taken out; null: never for that.",
    )
    base: PositiveDuration = Field(
        default=30.0,
        description="How long it stays out the first time; the second time twice that, and so on.",
    )
    max_share: Share = Field(
        default=0.5,
        description="Largest share (0..1) of the pool's hosts that may be out in this way at once.",
    )


class TrafficSpec(Part):
    """How the balancer treats a pool's requests."""

    max_in_flight_per_server: int | None = Field(
        default=None,
        ge=1,
        description="Most requests at once on one host, the others wait at the balancer; none: no bound.",
    )
    retry: Retry = Field(
        default="declared",
        description='Which requests may be sent again after a host broke off: "declared" (GET, HEAD and those with '
        'Idempotency-Key), or "idempotent" (all: you promise that running one twice does no harm).',
    )
    hedge: bool = Field(
        default=False,
        description="Send a request that may be sent again to a second host once it takes longer than the pool's p95.",
    )
    slow_start: Duration = Field(
        default=10.0,
        description="How long a host that has just become healthy takes to grow to its full share.",
    )
    panic_share: Share = Field(
        default=0.0,
        description="Health is ignored while less than this share (0..1) of the hosts is healthy; 0: never.",
    )
    session_header: Header = Field(
        default="x-session-id",
        description="Header whose value keeps a client on one host, with routing: consistent_hash.",
    )
    tenant_header: Header | None = Field(
        default=None,
        description="Header that names the tenant for fair queueing; with API keys the key's name is the tenant.",
    )
    ejection: EjectionSpec = Field(default=EjectionSpec(), description="Taking out hosts that fail requests.")
