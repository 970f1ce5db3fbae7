"""Which hosts get traffic: from the journal's records to the balancer's list. PURE."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec
from fleet_wire.balancer import Backend, BackendList, ModelNeed, PoolConfig


def backends(
    spec: FleetSpec,
    records: Mapping[str, HostRecord],
    address: Callable[[HostRecord], str],
    token: Callable[[str], str],
) -> BackendList:
    """Ready hosts are active, draining ones finish what they have; an unreachable one stays listed.

    The agent behind a host that we cannot reach by SSH may still serve; the balancer's own health checks decide that.
    `address` gives an agent's "HOST:PORT", `token` its bearer token.
    """
    listed = []
    for pool in spec.pools:
        for name in pool.hosts:
            record = records.get(name)
            if record is None or record.agent_port is None:
                continue
            if record.state in (HostState.READY, HostState.UNREACHABLE, HostState.DRAINING):
                state = "draining" if record.state is HostState.DRAINING else "active"
                listed.append(
                    Backend.model_validate(
                        {
                            "name": name,
                            "pool": pool.name,
                            "address": address(record),
                            "state": state,
                            "token": token(name),
                        }
                    )
                )
    return BackendList(pools=[_pool(spec, name) for name in (p.name for p in spec.pools)], backends=listed)


def _pool(spec: FleetSpec, name: str) -> PoolConfig:
    pool = spec.pool(name)
    return PoolConfig(
        name=name,
        models=[
            ModelNeed(name=m, device_memory_bytes=spec.model(m).device_memory_bytes) for m in pool.models
        ],
        routing=pool.routing or spec.balancer.routing,
        queue_size=spec.balancer.queue.size,
        queue_timeout_s=spec.balancer.queue.timeout,
        request_timeout_s=spec.balancer.request_timeout,
    )
