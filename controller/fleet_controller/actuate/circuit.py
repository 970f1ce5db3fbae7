"""Circuit: not all machines of a rack start at once. PURE.

A machine draws most while it starts: fans, disks, all devices at their limit. A breaker that holds the running rack
may not hold the starting one. So no more than `power.boots_at_once` hosts of one `power.group` are between being
switched on and answering. It is counted in the journal, so a controller that was killed in between counts right.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec


def crowd(spec: FleetSpec, records: Mapping[str, HostRecord], host: str) -> str:
    """Why `host` must not be switched on yet; "" where it may be."""
    power = spec.host(host).power
    if power.group is None or power.driver == "none":
        return ""
    booting = [
        other.name
        for other in spec.hosts
        if other.name != host
        and other.power.group == power.group
        and (record := records.get(other.name)) is not None
        and record.state is HostState.BOOTING
    ]
    if len(booting) < power.boots_at_once:
        return ""
    names = ", ".join(booting[:3]) + (" ..." if len(booting) > 3 else "")
    return f"waits to be switched on: in group {power.group}, {len(booting)} are starting ({names})"
