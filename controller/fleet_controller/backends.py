"""Which hosts get traffic, how, and whose: from the journal's records to the balancer's list. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fleet_controller.lifecycle import HostState
from fleet_controller.plan.placement import has
from fleet_controller.records import HostRecord, KeyRecord
from fleet_controller.spec import FleetSpec
from fleet_wire.agent import AgentStatus
from fleet_wire.balancer import ApiKey, Backend, BackendList, BackendState, Ejection, ModelNeed, PoolConfig


def backends(
    spec: FleetSpec,
    records: Mapping[str, HostRecord],
    address: Callable[[HostRecord], str],
    token: Callable[[str], str],
    keys: Iterable[KeyRecord] = (),
    seen: Mapping[str, AgentStatus] | None = None,
) -> BackendList:
    """Ready hosts are active, draining ones finish what they have; an unreachable one stays listed.

    The agent behind a host that we cannot reach by SSH may still serve; the balancer's own health checks decide that.
    One that an operator drained gets nothing new: it can't be stopped yet, and may well answer.
    `address` gives an agent's "HOST:PORT", `token` its bearer token. `keys` count where fleet.yaml asks for them.
    `seen` is what agents said of themselves at the last look.
    """
    listed = []
    for pool in spec.pools:
        for name in pool.hosts:
            record = records.get(name)
            if record is None or record.agent_port is None or not has(spec, pool, name, record):
                continue
            if record.state in (HostState.READY, HostState.UNREACHABLE, HostState.DRAINING):
                lost = record.state is HostState.UNREACHABLE
                leaves = record.state is HostState.DRAINING or (lost and record.cordoned)
                state: BackendState = "draining" if leaves else "active"
                listed.append(
                    Backend(
                        name=name,
                        pool=pool.name,
                        address=address(record),
                        state=state,
                        token=token(name),
                        zone=spec.host(name).zone,
                        models=_models((seen or {}).get(name), record),
                    )
                )
    return BackendList(
        pools=[_pool(spec, p.name) for p in spec.pools],
        backends=listed,
        keys=[_key(key) for key in keys] if spec.balancer.keys == "required" else None,
        zone=spec.balancer.zone,
    )


def _models(status: AgentStatus | None, record: HostRecord) -> dict[str, str]:
    """Model -> version that is ready there; empty where that is not known, and any request may go there.

    What an earlier agent of this host said does not count.
    """
    if status is None or status.action_id != record.action_id:
        return {}
    return {model.name: model.version for model in status.models if model.ready}


def _pool(spec: FleetSpec, name: str) -> PoolConfig:
    pool = spec.pool(name)
    traffic = pool.traffic
    ejection = traffic.ejection
    return PoolConfig(
        name=name,
        models=[
            ModelNeed(name=m, device_memory_bytes=spec.model(m).device_memory_bytes) for m in pool.models
        ],
        routing=pool.routing or spec.balancer.routing,
        queue_size=spec.balancer.queue.size,
        queue_timeout_s=spec.balancer.queue.timeout,
        request_timeout_s=spec.balancer.request_timeout,
        max_in_flight_per_server=traffic.max_in_flight_per_server,
        retry=traffic.retry,
        hedge=traffic.hedge,
        slow_start_s=traffic.slow_start,
        panic_share=traffic.panic_share,
        session_header=traffic.session_header,
        tenant_header=traffic.tenant_header,
        ejection=Ejection(
            enabled=ejection.enabled,
            consecutive_5xx=ejection.consecutive_5xx,
            latency_factor=ejection.latency_factor,
            base_s=ejection.base,
            max_share=ejection.max_share,
        ),
    )


def _key(record: KeyRecord) -> ApiKey:
    return ApiKey(
        name=record.name,
        sha256=record.sha256,
        rate_per_s=record.rate_per_s,
        burst=record.burst,
        share=record.share,
        pools=list(record.pools),
    )
