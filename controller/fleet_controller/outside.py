"""Outside: everything that the loop does not decide but meets: the time, the hosts, the balancer, other threads.

The loop is handed one of these, so that the same loop runs against a simulated world whose time is not ours.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from fleet_controller.actuate import Site, open_site
from fleet_controller.actuate.actuator import Spawn, in_thread
from fleet_controller.clock import Clock, SteadyClock
from fleet_controller.doorkeeper import Doorkeeper
from fleet_controller.journal import Journal
from fleet_controller.observe import Observer
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder


@dataclass(frozen=True)
class Outside:
    """`open_site` gives the machines and releases of one version of fleet.yaml. Raises HostFailure."""

    clock: Clock
    observer: Observer
    doorkeeper: Doorkeeper
    open_site: Callable[[FleetSpec], Site]
    spawn: Spawn


def real(spec: FleetSpec, journal: Journal, folder: StateFolder, executor: Executor) -> Outside:
    """The system's clock, hosts over SSH, the balancer's process, threads. Agents are asked on `executor`."""
    return Outside(
        SteadyClock(),
        Observer(executor),
        Doorkeeper(spec, folder, journal),
        lambda wanted: open_site(wanted, folder),
        in_thread,
    )
