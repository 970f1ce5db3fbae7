"""From what was observed and recorded to what plan looks at. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Observation
from fleet_controller.plan import PoolView
from fleet_controller.plan.choice import Market, hurry
from fleet_controller.plan.placement import has, held
from fleet_controller.plan.tiers import Rank
from fleet_controller.policies.schedule import bounds
from fleet_controller.records import HostRecord
from fleet_controller.spec import TIERS, FleetSpec, HostSpec, PoolSpec
from fleet_controller.window import Signal


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
    signal: Signal | None = None,
    speeds: Mapping[str, float] | None = None,
) -> PoolView:
    """`pool` as plan sees it; `release` is the key of the release that its hosts should run.

    `speeds`: items per second of the hosts that were measured.
    """
    silent, mute = {}, set()
    for name, report in observation.hosts.items():
        if report.status is None:
            silent[name] = report.error or "does not answer"
            mute.add(name)
        elif report.status.state == "failed":
            silent[name] = report.status.error or "says that it failed"
    mine = held(spec, pool, records)
    floor = bounds(pool.scaling, observation.at).low
    return PoolView(
        name=pool.name,
        hosts=tuple(spec.host(name) for name in mine.hosts),
        records=records,
        desired=desired,
        reason=reason,
        release=release,
        busy=busy,
        silent=silent,
        roomless=roomless(spec, mine, observation),
        mute=frozenset(mute),
        in_flight=observation.in_flight(),
        stopped=stopped,
        free=_free(spec, pool, records),
        keep_s=pool.scaling.cooldown.scale_down,
        floor=floor,
        hurry=hurry(signal, pool.scaling, floor),
        market=Market(speeds or {}, spec.controller.price_per_kwh or 0.0),
    )


def pool_rank(
    spec: FleetSpec, pool: PoolSpec, view: PoolView, observation: Observation, decided: bool
) -> Rank:
    """The pool among the others; `decided`: whether its number of servers was."""
    return Rank(
        view,
        tier=TIERS.index(pool.tier),
        candidates=frozenset(pool.hosts),
        unfit=_unfit(spec, pool, observation),
        decided=decided,
    )


def _free(spec: FleetSpec, pool: PoolSpec, records: Mapping[str, HostRecord]) -> tuple[HostSpec, ...]:
    """Hosts of several pools that nobody uses: off, or failed in another pool's hands."""
    unused = (HostState.OFF, HostState.FAILED)
    return tuple(
        spec.host(name)
        for name in (pool.hosts if not spec.shared.isdisjoint(pool.hosts) else ())
        if name in spec.shared
        and ((record := records.get(name)) is None or record.state in unused)
        and not has(spec, pool, name, record)
    )


def _unfit(spec: FleetSpec, pool: PoolSpec, observation: Observation) -> frozenset[str]:
    """Shared hosts whose whole device is known to be too small for a model of the pool."""
    most = max((spec.model(model).device_memory_bytes or 0 for model in pool.models), default=0)
    found = set()
    for name in spec.shared.intersection(pool.hosts) if most else ():
        report, given = observation.hosts.get(name), spec.host(name).device_memory_bytes
        total = report.status.device_memory.total_bytes if report is not None and report.status else None
        sizes = [size for size in (given, total) if size is not None]
        if sizes and min(sizes) < most:
            found.add(name)
    return frozenset(found)


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
