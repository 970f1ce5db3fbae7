"""Placement: which pool a host serves, where it may serve several. PURE.

A host serves the pool that its last start was for, until it is off. From then on nobody has it, and any of its pools
may take it.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec, PoolSpec


def serves(spec: FleetSpec, record: HostRecord) -> PoolSpec | None:
    """The pool that a host serves, or the first that it may serve while it is off; None: it is in no pool."""
    return spec.pool_of(record.name, None if record.state is HostState.OFF else record.pool)


def has(spec: FleetSpec, pool: PoolSpec, name: str, record: HostRecord | None) -> bool:
    """Whether `pool`, one of its pools, has the host: nobody has one that is off and may serve several."""
    if name not in spec.shared:
        return True
    if record is None or record.state is HostState.OFF:
        return False
    found = spec.pool_of(name, record.pool)
    return found is not None and found.name == pool.name


def held(spec: FleetSpec, pool: PoolSpec, records: Mapping[str, HostRecord]) -> PoolSpec:
    """`pool` with those of its hosts alone that it has, and those that are only for it."""
    if spec.shared.isdisjoint(pool.hosts):
        return pool
    mine = tuple(name for name in pool.hosts if has(spec, pool, name, records.get(name)))
    return pool.model_copy(update={"hosts": mine})


def elsewhere(spec: FleetSpec, pool: PoolSpec, records: Mapping[str, HostRecord]) -> dict[str, str]:
    """Those of the pool's hosts that serve another pool now, and which."""
    found = {}
    for name in spec.shared.intersection(pool.hosts):
        record = records.get(name)
        other = None if record is None or record.state is HostState.OFF else serves(spec, record)
        if other is not None and other.name != pool.name:
            found[name] = other.name
    return found
