"""Which host gets the next request: one policy per file, each no longer than a screen. PURE.

picker.py keeps who may be picked at all, shelf.py the order; a pick costs the same with 3 hosts and with 10,000.
"""

from __future__ import annotations

import random

from fleet_balancer.pick.consistent_hash import ConsistentHash
from fleet_balancer.pick.gpu_memory import GpuMemory
from fleet_balancer.pick.least_connections import LeastConnections
from fleet_balancer.pick.picker import Picker
from fleet_balancer.pick.power_of_two import PowerOfTwo
from fleet_balancer.pick.response_time import ResponseTime
from fleet_balancer.pick.round_robin import RoundRobin
from fleet_balancer.pick.weighted import Weighted
from fleet_wire.balancer import PoolConfig

__all__ = ["Picker", "picker_for"]


def picker_for(config: PoolConfig, rng: random.Random, stale_s: float, zone: str | None = None) -> Picker:
    """The policy by its name in fleet.yaml. `stale_s`: age at which a host's report is ignored; `zone`: our own."""
    match config.routing:
        case "least_connections":
            return LeastConnections(config, stale_s, zone)
        case "gpu_memory":
            return GpuMemory(config, stale_s, zone)
        case "response_time":
            return ResponseTime(config, stale_s, zone)
        case "power_of_two":
            return PowerOfTwo(config, stale_s, zone, rng=rng)
        case "round_robin":
            return RoundRobin(config, stale_s, zone)
        case "weighted":
            return Weighted(config, stale_s, zone)
        case "consistent_hash":
            return ConsistentHash(config, stale_s, zone)
