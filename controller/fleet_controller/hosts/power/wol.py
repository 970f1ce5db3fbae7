"""driver: wol. Woken by a magic packet, shut down by a command on the machine itself over SSH.

Nobody can be asked whether such a machine is on. One whose SSH port answers is; one that is silent may be off or cut
off, which is unknown, but for one that this driver itself saw go. A packet to a machine that runs does nothing.
Format: https://en.wikipedia.org/wiki/Wake-on-LAN#Magic_packet
"""

from __future__ import annotations

import sys
import time
from typing import Literal, Protocol

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.power.state import Level
from fleet_controller.hosts.power.station import Station, said
from fleet_controller.hosts.transport import Transport

POWEROFF = ("sudo", "-n", "systemctl", "poweroff")
# Sent three times: packets of UDP get lost, and another one does no harm.
_WAKE = (
    "import socket, sys; mac, to, port = sys.argv[1:]; "
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); "
    "[s.sendto(bytes([255] * 6) + bytes.fromhex(mac) * 16, (to, int(port))) for _ in range(3)]"
)
# A machine that shuts down closes its SSH server long before it is off. It counts as off once nothing at all answered
# at its address, not even with a refusal, for so many looks in a row.
_SILENT_LOOKS = 3
_LOOK_S = 1.0

Sign = Literal["greets", "alive", "silent"]


class Doorbell(Protocol):
    """`ring`: "greets" over SSH, "alive" (something there answers or refuses), or "silent". Raises HostFailure."""

    def ring(self) -> Sign: ...


class WakeOnLan:
    """`own` leads to the machine itself, `station` to where the packet is sent from."""

    blind = True

    def __init__(self, station: Station, own: Transport, doorbell: Doorbell) -> None:
        self._station = station
        self._power = station.power
        self._own = own
        self._doorbell = doorbell
        self._gone = False
        self.who = f"wake-on-LAN{station.where}"

    def read(self) -> Level:
        sign = self._doorbell.ring()
        if sign != "silent":
            self._gone = False
            # a kernel without an SSH server: it comes up or goes down, or its server is broken
            return Level.ON if sign == "greets" else Level.RISING
        if self._gone:
            return Level.OFF
        raise self._station.failure(
            "power",
            "nothing answers at its address, and wake-on-LAN cannot tell a machine that is off from one cut off",
            "Look at the machine, or give it a power control that can be asked: redfish, ipmi, libvirt, command",
        )

    def turn_on(self, within_s: float) -> None:
        to, _, port = self._power.broadcast.partition(":")
        mac = (self._power.mac or "").replace(":", "").replace("-", "")
        python = self._station.host.install.python if self._station.remote else sys.executable
        result = self._station.call(
            Command(
                (python, "-c", _WAKE, mac, to, port or "9"), timeout_s=min(within_s, self._power.call_timeout)
            ),
            "python3",
        )
        if result.status != 0:
            raise self._station.failure(
                "power",
                f"the packet that wakes it could not be sent{self._station.where}: {said(result)}",
                "Correct power.broadcast; it is an address of the network that the machine is in",
            )

    def ask_off(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        try:
            timeout_s = min(within_s, self._power.call_timeout)
            result = self._own.run(Command(self._power.off or POWEROFF, timeout_s=timeout_s))
            if result.status > 0:  # negative: it was ended by the shutdown that it asked for
                raise self._station.failure(
                    "power",
                    f"the command that shuts it down ended with status {result.status} and said: {said(result)}",
                    "Let the user shut it down (sudo without a password for that command), or set power.off",
                )
        except HostFailure as failure:
            if failure.kind not in ("lost", "timeout"):
                raise
        finally:
            self._own.close()
        self._watch_it_go(until)
        return True

    def force_off(self, within_s: float) -> bool:
        return False

    def _watch_it_go(self, until: float) -> None:
        """Remember that it went, if it does: later nobody could tell."""
        silent = 0
        while silent < _SILENT_LOOKS:
            silent = silent + 1 if self._doorbell.ring() == "silent" else 0
            if time.monotonic() > until:
                return
            if silent < _SILENT_LOOKS:
                time.sleep(_LOOK_S)
        self._gone = True
