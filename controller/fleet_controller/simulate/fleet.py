"""The simulated fleet as the plan sees it: which host starts and which stops is the real plan's word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fleet_controller.lifecycle import HostState
from fleet_controller.plan import PoolView, steps
from fleet_controller.records import HostRecord
from fleet_controller.simulate.kernel import DRAINING, READY, STARTING
from fleet_controller.spec.host import HostSpec

RELEASE = "simulated"
STATE_OF = {
    0: HostState.OFF,
    STARTING: HostState.STARTING,
    READY: HostState.READY,
    DRAINING: HostState.DRAINING,
}


class PlannedFleet:
    """Hosts numbered from 0. `moves` says which of them start and which stop to come to `desired`."""

    def __init__(self, hosts: int, prices: Sequence[float] = ()) -> None:
        self.specs = tuple(
            HostSpec(
                name=f"sim-{n}",
                address="local",
                price_per_hour=prices[min(n, len(prices) - 1)] if prices else None,
            )
            for n in range(hosts)
        )
        self._number = {spec.name: n for n, spec in enumerate(self.specs)}
        self._off = {spec.name: HostRecord(spec.name, release=RELEASE) for spec in self.specs}

    def moves(
        self, phases: list[int], flying: list[int], desired: int, reason: str, now: float
    ) -> tuple[list[int], list[int]]:
        records = {
            spec.name: replace(self._off[spec.name], state=STATE_OF[phase])
            for spec, phase in zip(self.specs, phases, strict=True)
        }
        view = PoolView(
            name="default",
            hosts=self.specs,
            records=records,
            desired=desired,
            reason=reason,
            release=RELEASE,
            busy=frozenset(s.name for s, phase in zip(self.specs, phases, strict=True) if phase == STARTING),
            in_flight={spec.name: n for spec, n in zip(self.specs, flying, strict=True)},
        )
        found = steps(view, "up", now)
        return (
            [self._number[step.host] for step in found if step.kind == "start"],
            [self._number[step.host] for step in found if step.kind == "stop"],
        )


class DirectFleet:
    """A fleet that does at once what it is told: for policies that bound their own steps."""

    def moves(
        self, phases: list[int], flying: list[int], desired: int, reason: str, now: float
    ) -> tuple[list[int], list[int]]:
        starting = [n for n, phase in enumerate(phases) if phase == STARTING]
        ready = [n for n, phase in enumerate(phases) if phase == READY]
        free = [n for n, phase in enumerate(phases) if phase == 0]
        surplus = len(ready) + len(starting) - desired
        if surplus <= 0:
            return free[:-surplus] if surplus else [], []
        stops = starting[::-1][:surplus]
        return [], stops + sorted(ready, key=lambda n: flying[n])[: surplus - len(stops)]
