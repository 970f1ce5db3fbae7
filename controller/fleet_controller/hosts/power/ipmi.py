"""driver: ipmi. A BMC over IPMI 2.0 (RMCP+), by ipmitool, run here or on `via`.

The password goes over ipmitool's standard input: it is in no argument, no environment and no file of ours.
"""

from __future__ import annotations

import re

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.power.secret import password
from fleet_controller.hosts.power.state import Level
from fleet_controller.hosts.power.station import Station, said
from fleet_controller.hosts.transport import Result

# ipmitool waits so long for an answer, and asks so often, before it gives up; one call is two or three of these.
_ANSWER_S = 2
_STATES = {"chassis power is on": Level.ON, "chassis power is off": Level.OFF}


class Ipmi:
    blind = False

    def __init__(self, station: Station) -> None:
        self._station = station
        self._power = station.power
        bmc = station.power.bmc or ""
        with_port = re.fullmatch(r"(?P<host>\[.*\]|[^:]+):(?P<port>\d+)", bmc)
        self._address = (with_port["host"] if with_port else bmc).strip("[]")
        self._port = with_port["port"] if with_port else "623"
        self.who = f"its BMC {bmc}{station.where}"

    def read(self) -> Level:
        result = self._ask("status", self._power.call_timeout)
        level = _STATES.get(result.stdout.decode("utf-8", "replace").strip().lower())
        if result.status != 0 or level is None:
            raise self._station.failure(
                "power",
                f"whether it is on is unknown: {self.who} says: {said(result)}",
                f"Run `{' '.join(self._argv('status'))}` by hand (a BMC that hangs often needs `mc reset cold`)",
            )
        return level

    def turn_on(self, within_s: float) -> None:
        self._order("on", within_s)

    def ask_off(self, within_s: float) -> bool:
        self._order("soft", within_s)
        return True

    def force_off(self, within_s: float) -> bool:
        self._order("off", within_s)
        return True

    def _order(self, word: str, within_s: float) -> None:
        result = self._ask(word, within_s)
        if result.status != 0:
            # ipmitool does not tell a refusal from an answer that was lost
            lost = b"session" not in result.stderr and b"response" in result.stderr.lower()
            raise self._station.failure(
                "lost" if lost else "power",
                f"chassis power {word}: {self.who} says: {said(result)}",
                f"Run `{' '.join(self._argv(word))}` by hand",
            )

    def _ask(self, word: str, within_s: float) -> Result:
        timeout_s = min(within_s, self._power.call_timeout)
        secret = password(self._station.host)
        command = Command(self._argv(word), stdin=secret.encode() + b"\n", timeout_s=timeout_s)
        return self._station.call(command, "ipmitool")

    def _argv(self, word: str) -> tuple[str, ...]:
        power = self._power
        suite = () if power.cipher_suite is None else ("-C", str(power.cipher_suite))
        login = ("-U", power.user or "", *suite, "-f", "/dev/stdin")
        wait = ("-N", str(_ANSWER_S), "-R", "2")
        return (
            "ipmitool",
            "-I",
            "lanplus",
            "-H",
            self._address,
            "-p",
            self._port,
            *login,
            *wait,
            "chassis",
            "power",
            word,
        )
