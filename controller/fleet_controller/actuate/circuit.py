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


class Circuits:
    """Who starts in each group, as `records` have it and as `begins` adds to it; made anew for each plan."""

    def __init__(self, spec: FleetSpec, records: Mapping[str, HostRecord]) -> None:
        self._power = {
            host.name: host.power
            for host in spec.hosts
            if host.power.group is not None and host.power.driver != "none"
        }
        self._booting: dict[str | None, set[str]] = {}
        for name in self._power:
            if (record := records.get(name)) is not None and record.state is HostState.BOOTING:
                self.begins(name)

    def begins(self, host: str) -> None:
        """`host` is about to be switched on."""
        if host in self._power:
            self._booting.setdefault(self._power[host].group, set()).add(host)

    def crowd(self, host: str) -> str:
        """Why `host` must not be switched on yet; "" where it may be."""
        power = self._power.get(host)
        if power is None:
            return ""
        booting = sorted(self._booting.get(power.group, set()) - {host})
        if len(booting) < power.boots_at_once:
            return ""
        names = ", ".join(booting[:3]) + (" ..." if len(booting) > 3 else "")
        return f"waits to be switched on: in group {power.group}, {len(booting)} are starting ({names})"
