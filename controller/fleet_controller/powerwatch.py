"""PowerWatch: what the power controls say of the hosts, beside what the plan says. It shows, and switches nothing.

Somebody presses a button, a breaker trips, a BMC forgets: a host that is off by plan draws power, one that serves by
plan has none. Each control is asked at every twelfth look (once a minute, by default), more rarely in a large fleet,
and beside the loop: one that hangs delays nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from fleet_controller.actuate import Site
from fleet_controller.actuate.actuator import Spawn
from fleet_controller.clock import Clock
from fleet_controller.hosts.power import Reading
from fleet_controller.lifecycle import HostState
from fleet_controller.records import HostRecord

EVERY_LOOKS = 12
# A control takes up to a second of somebody's time: so many hosts are asked a second at most.
HOSTS_PER_S = 10.0
ASKED_AT_ONCE = 4

_RUNS = frozenset(
    {HostState.REACHABLE, HostState.INSTALLING, HostState.STARTING, HostState.LOADING, HostState.READY}
)


@dataclass(frozen=True)
class Seen:
    """A reading, and when it was asked for (Unix seconds)."""

    reading: Reading
    at: float


def drift(record: HostRecord, seen: Seen | None) -> str | None:
    """Where plan and power control contradict each other; what was read before the host's last move says nothing."""
    if seen is None or seen.at <= record.since:
        return None
    if record.state is HostState.OFF and seen.reading.state == "on":
        return "off by plan, but its power control says that it is on"
    if record.state in _RUNS and seen.reading.state == "off":
        return f"{record.state} by plan, but its power control says that it is off"
    return None


class PowerWatch:
    """Used by the loop; the asking goes on in threads of its own."""

    def __init__(self, clock: Clock, spawn: Spawn) -> None:
        self._clock = clock
        self._spawn = spawn
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self._asking = 0

    def busy(self) -> bool:
        with self._lock:
            return self._asking > 0

    def seen(self) -> Mapping[str, Seen]:
        with self._lock:
            return dict(self._seen)

    def look(self, site: Site, busy: frozenset[str]) -> None:
        """Begin to ask for the hosts that are due, unless the last round still goes on. `busy` ones are left alone."""
        controlled = [host.name for host in site.spec.hosts if host.power.driver != "none"]
        if not controlled:
            return
        now = self._clock.now()
        every_s = max(EVERY_LOOKS * site.spec.controller.interval, len(controlled) / HOSTS_PER_S)
        with self._lock:
            for gone in self._seen.keys() - set(controlled):
                del self._seen[gone]
            due = deque(
                name
                for name in controlled
                if name not in busy and (name not in self._seen or now - self._seen[name].at >= every_s)
            )
            if self._asking or not due:
                return
            threads = self._asking = min(ASKED_AT_ONCE, len(due))
        for number in range(threads):
            self._spawn(f"power-look-{number}", lambda: self._ask(site, due))

    def _ask(self, site: Site, due: deque[str]) -> None:
        try:
            while True:
                try:
                    name = due.popleft()
                except IndexError:
                    return
                at = self._clock.now()
                reading = site.machines.machine(name).power_status()
                with self._lock:
                    self._seen[name] = Seen(reading, at)
        finally:
            with self._lock:
                self._asking -= 1
