"""Outside: everything that the loop does not decide but meets: the time, the hosts, the balancer, other threads.

The loop is handed one of these, so that the same loop runs against a simulated world whose time is not ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from fleet_controller.actuate import Site, open_site
from fleet_controller.actuate.actuator import Spawn, in_thread
from fleet_controller.clock import Clock
from fleet_controller.door.keeper import Doorkeeper
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.journal import Journal
from fleet_controller.observe import Observer
from fleet_controller.pulse import Pulse
from fleet_controller.releasebook import ReleaseBook
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder


class Bell(Protocol):
    """What wakes a thread that waits: threading.Event, or what stands for it in a simulated world."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


@dataclass(frozen=True)
class Outside:
    """`open_site` gives the machines and releases of one version of fleet.yaml; raises HostFailure.

    `spawn` has a piece of work done beside the loop, and `bell` makes what wakes it. `pulse` hears who is alive.
    Each `poll_s` seconds the loop sees whether an operator asked something.
    """

    clock: Clock
    observer: Observer
    doorkeeper: Doorkeeper
    open_site: Callable[[FleetSpec], Site]
    spawn: Spawn
    pulse: Pulse
    bell: Callable[[], Bell] = field(default=threading.Event)
    poll_s: float = 0.2


def real(
    spec: FleetSpec,
    journal: Journal,
    folder: StateFolder,
    executor: Executor,
    clock: Clock,
    pulse: Pulse,
    sudo: SudoPassword | None = None,
) -> Outside:
    """The system's clock, hosts over SSH, the balancer's process, threads. Agents are asked on `executor`."""
    return Outside(
        clock,
        Observer(executor),
        Doorkeeper(spec, folder, journal, clock),
        lambda wanted: _opened(wanted, folder, sudo),
        in_thread,
        pulse,
    )


def _opened(spec: FleetSpec, folder: StateFolder, sudo: SudoPassword | None) -> Site:
    """Raises HostFailure when a release can't be built."""
    site = open_site(spec, folder, sudo)
    ReleaseBook(folder).note(site)
    return site
