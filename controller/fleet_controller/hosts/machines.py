"""All machines of a fleet, with their connections."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from fleet_controller.hosts.inheritance import passwords
from fleet_controller.hosts.install.installer import Stock
from fleet_controller.hosts.local import LocalTransport
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.power import make_power
from fleet_controller.hosts.power.wol import Sign
from fleet_controller.hosts.ssh.connections import Connections
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec import FleetSpec, HostSpec

# A machine that is off does not answer; asking it must not cost much.
RING_S = 2.0


class Bell:
    """Whether a machine itself answers, asked at its SSH port without logging in."""

    def __init__(self, connections: Connections, host: HostSpec) -> None:
        self._connections = connections
        self._host = host

    def ring(self) -> Sign:
        if self._host.is_local:
            return "greets"
        within_s = min(RING_S, self._host.ssh.connect_timeout)
        return self._connections.to_host(self._host.name).ring(within_s)


def _place(folder: Path, host: HostSpec, fleet: str) -> tuple[str, ...]:
    """Where a host's files are: the folder that its user's fleets have in common, and what is below it."""
    if host.is_local:
        return str(folder.resolve() / "hosts"), host.name
    return host.install.directory, fleet, host.name


class Machines:
    """The machines of a fleet. One SSH connection per host, shared by all who use it; safe for threads.

    `folder` is the state folder: local hosts live in it, and packed releases. `sudo` goes to those errands alone that
    may become root.
    """

    def __init__(self, spec: FleetSpec, folder: Path, sudo: SudoPassword | None = None) -> None:
        self._spec = spec
        self._secrets = passwords(spec)
        self._stock = Stock(folder, self._secrets)
        self._folder = folder
        self._connections = Connections(spec)
        self._sudo = sudo or SudoPassword()
        self._lock = threading.Lock()
        self._machines: dict[str, Machine] = {}

    @property
    def stock(self) -> Stock:
        """What this machine keeps for the hosts: wheels, weights, packed releases."""
        return self._stock

    def machine(self, name: str) -> Machine:
        """Raises UnknownName. Nothing is connected before it is used."""
        with self._lock:
            if name not in self._machines:
                host = self._spec.host(name)
                own = self._transport(host)
                power = make_power(host, self._power_transport(host), own, Bell(self._connections, host))
                place = _place(self._folder, host, self._spec.fleet)
                self._machines[name] = Machine(self._spec, host, own, power, self._stock, place, self._sudo)
            return self._machines[name]

    def reaching_s(self, name: str) -> float:
        """For how many seconds a connection to it has been tried by now; 0: it is there, or nobody tries."""
        return self._connections.reaching_s(name)

    def _transport(self, host: HostSpec) -> Transport:
        if host.is_local:
            return LocalTransport(host.name, withheld=self._secrets)
        return SshTransport(self._connections.to_host(host.name), host.ssh.command_timeout)

    def _power_transport(self, host: HostSpec) -> Transport:
        via = host.power.via
        if via is None:
            return LocalTransport(host.name, withheld=self._secrets)
        return self._transport(self._spec.host(via))

    def close(self) -> None:
        self._connections.close()

    def __enter__(self) -> Machines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
