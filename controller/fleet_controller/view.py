"""From what was observed and recorded to what plan looks at. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_controller.observe import Observation
from fleet_controller.plan import PoolView
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec, PoolSpec


def pool_view(
    spec: FleetSpec,
    pool: PoolSpec,
    records: Mapping[str, HostRecord],
    desired: int,
    release: str,
    reason: str,
    busy: frozenset[str],
    observation: Observation,
    stopped: int = 0,
) -> PoolView:
    """`pool` as plan sees it; `release` is the key of the release that its hosts should run."""
    silent, mute = {}, set()
    for name, report in observation.hosts.items():
        if report.status is None:
            silent[name] = report.error or "does not answer"
            mute.add(name)
        elif report.status.state == "failed":
            silent[name] = report.status.error or "says that it failed"
    return PoolView(
        name=pool.name,
        hosts=tuple(spec.host(name) for name in pool.hosts),
        records=records,
        desired=desired,
        reason=reason,
        release=release,
        busy=busy,
        silent=silent,
        roomless=roomless(spec, pool, observation),
        mute=frozenset(mute),
        in_flight=observation.in_flight(),
        stopped=stopped,
    )


def roomless(spec: FleetSpec, pool: PoolSpec, observation: Observation) -> frozenset[str]:
    """Hosts known to lack the device memory that a model of the pool declares; unknown is not full."""
    found = set()
    for name in pool.hosts:
        report = observation.hosts.get(name)
        if report is None or report.status is None:
            continue
        for model in pool.models:
            need, room = spec.model(model).device_memory_bytes, report.status.room_bytes(model)
            if need is not None and room is not None and room < need:
                found.add(name)
    return frozenset(found)
