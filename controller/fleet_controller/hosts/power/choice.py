"""Which driver switches a host."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.power.command import CommandPower
from fleet_controller.hosts.power.ipmi import Ipmi
from fleet_controller.hosts.power.libvirt import Libvirt
from fleet_controller.hosts.power.none import NoPower
from fleet_controller.hosts.power.state import Driver, Level, Power
from fleet_controller.hosts.power.station import Station
from fleet_controller.hosts.power.switch import Switch
from fleet_controller.hosts.power.wol import Doorbell, WakeOnLan
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec import HostSpec


def make_power(host: HostSpec, station: Transport, own: Transport, doorbell: Doorbell) -> Power:
    """`station` leads to where the control is used, `own` and `doorbell` to the machine itself. Connects nothing."""
    driver = host.power.driver
    if driver == "none":
        return NoPower(host.name)
    where = Station(host, station)
    chosen: dict[str, Callable[[], Driver]] = {
        "command": lambda: CommandPower(where),
        "libvirt": lambda: Libvirt(where),
        "ipmi": lambda: Ipmi(where),
        "wol": lambda: WakeOnLan(where, own, doorbell),
        "redfish": lambda: _redfish(host),
    }
    return Switch(host.name, host.power, chosen[driver](), lambda: _greets(doorbell))


def _greets(doorbell: Doorbell) -> bool:
    try:
        return doorbell.ring() == "greets"
    except HostFailure:  # nothing is known, so nothing contradicts
        return False


def _redfish(host: HostSpec) -> Driver:
    try:
        module = importlib.import_module("fleet_controller.hosts.power.redfish")
    except ModuleNotFoundError as error:
        return Missing(host, error.name or "sushy")
    made: Driver = module.Redfish(host)
    return made


class Missing:
    """Stands for a driver whose library is not installed: each use says so."""

    blind = False

    def __init__(self, host: HostSpec, library: str) -> None:
        self._host = host
        self._library = library
        self.who = f"power.driver: {host.power.driver}"

    def read(self) -> Level:
        raise self._failure()

    def turn_on(self, within_s: float) -> None:
        raise self._failure()

    def ask_off(self, within_s: float) -> bool:
        raise self._failure()

    def force_off(self, within_s: float) -> bool:
        raise self._failure()

    def _failure(self) -> HostFailure:
        return HostFailure(
            self._host.name,
            "config",
            f"{self.who} needs the Python package {self._library}, which is not installed where the controller runs",
            "pip install 'fleetctl[power]'",
        )
