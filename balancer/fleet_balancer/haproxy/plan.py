"""What the configuration is made from: the process's door, and its pools. PURE."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet_wire.balancer import BalancerLimits, PoolConfig

_HEADER = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Door:
    """What holds for the process. `sockets`: how many listening sockets it inherits."""

    limits: BalancerLimits
    threads: int
    sockets: int
    tls: bool
    access_log: bool
    connections: int
    probe_interval_s: float
    probe_timeout_s: float
    run: str


@dataclass(frozen=True)
class PoolPlan:
    """`hops`: its hosts want different tokens (see pools.hop)."""

    id: str
    config: PoolConfig
    places: int
    hops: bool
    lenient: bool


@dataclass(frozen=True)
class Plan:
    """`groups`: names of sets of pools that serve a model together, and those pools in the order of preference."""

    pools: tuple[PoolPlan, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    keys: bool
    peeks: bool
    open_pools: tuple[str, ...]


def header_name(name: str) -> str:
    """A header's name as it may stand in the configuration. Raises ValueError for anything else."""
    if not _HEADER.fullmatch(name):
        raise ValueError(
            f"{name!r:.80} is no header name that engine haproxy takes: letters, digits, - and _"
        )
    return name.lower()
