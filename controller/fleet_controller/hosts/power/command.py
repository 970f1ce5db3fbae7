"""driver: command. Commands of the operator's own, here or on another host: a cloud's command line, a PDU's."""

from __future__ import annotations

import re

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, brief, printable
from fleet_controller.hosts.power.state import Level
from fleet_controller.hosts.power.station import Station
from fleet_controller.hosts.transport import Result


class CommandPower:
    """They run on `station`; an order may take as long as switching may, a look `call_timeout`."""

    blind = False

    def __init__(self, station: Station) -> None:
        self._station = station
        self._power = station.power
        self.who = f"power.status{station.where}"

    def read(self) -> Level:
        result = self._run("status", self._power.status, self._power.call_timeout)
        said = brief(result.stderr) or brief(result.stdout) or "nothing"
        if result.status != 0:
            # Not knowing is not "off": a machine taken for off by mistake would be switched on twice.
            raise self._unknown(f"power.status ended with status {result.status}{self._station.where}", said)
        text = printable(result.stdout)
        if re.search(self._power.status_on, text) is not None:
            return Level.ON
        if self._power.status_off is not None and re.search(self._power.status_off, text) is None:
            raise self._unknown("power.status_on and power.status_off both do not match what it said", said)
        return Level.OFF

    def turn_on(self, within_s: float) -> None:
        self._order("on", self._power.on, within_s)

    def ask_off(self, within_s: float) -> bool:
        self._order("off", self._power.off, within_s)
        return True

    def force_off(self, within_s: float) -> bool:
        if not self._power.force_off:
            return False
        self._order("force_off", self._power.force_off, within_s)
        return True

    def _order(self, word: str, argv: tuple[str, ...], within_s: float) -> None:
        result = self._run(word, argv, within_s)
        if result.status != 0:
            said = brief(result.stderr) or brief(result.stdout) or "nothing"
            raise self._station.failure(
                "power",
                f"power.{word} ended with status {result.status} and said: {said}",
                f"Run the command power.{word} by hand and see why",
            )

    def _run(self, word: str, argv: tuple[str, ...], timeout_s: float) -> Result:
        if not argv:
            raise self._station.failure(
                "config",
                f"power.{word} is not set",
                "Give power.on, power.off and power.status a command each",
            )
        return self._station.run(Command(argv, timeout_s=timeout_s))

    def _unknown(self, why: str, said: str) -> HostFailure:
        return self._station.failure(
            "power",
            f"whether it is on is unknown: {why} and said: {said}",
            "Make power.status end with 0 and print the state, whether the machine is on or off",
        )
