"""From an observation to the counters that the window takes in. PURE."""

from __future__ import annotations

from fleet_controller.observe import Observation
from fleet_controller.spec import PoolSpec
from fleet_controller.window import HostSample, PoolSample
from fleet_wire.capacity import ModelLoad
from fleet_wire.histogram import LatencyHistogram


def pool_sample(pool: PoolSpec, observation: Observation) -> PoolSample | None:
    """The balancer's counters of one pool; None when it did not answer or does not know the pool yet."""
    balancer = observation.balancer
    if balancer is None:
        return None
    for counted in balancer.pools:
        if counted.name == pool.name:
            return PoolSample(
                at=balancer.at,
                source=f"{balancer.pid}@{balancer.started_at}",
                arrivals=counted.arrivals,
                completed=counted.completed,
                errors=counted.errors,
                in_flight=counted.in_flight,
                queued=counted.queued,
                latency=LatencyHistogram.from_wire(counted.latency),
                started_at=balancer.started_at,
            )
    return None


def host_samples(pool: PoolSpec, observation: Observation) -> list[HostSample]:
    """The counters of every agent of the pool that answered."""
    samples = []
    for name in pool.hosts:
        report = observation.hosts.get(name)
        if report is None or report.status is None:
            continue
        status = report.status
        samples.append(
            HostSample(
                at=status.at,
                name=name,
                source=f"{status.pid}@{status.started_at}",
                busy_s=status.busy_s,
                completed=status.completed,
                queued=status.queued,
                ready=status.state == "ready",
                models=tuple(
                    ModelLoad(m.name, m.completed, m.items, m.max_batch_size, tuple(m.service_curve))
                    for m in status.models
                    if m.ready
                ),
            )
        )
    return samples
