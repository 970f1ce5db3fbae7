"""driver: libvirt. A domain, by virsh: run on the hypervisor (`via`), or here with a URI that leads there.

No binding is needed, and a virsh that hangs is killed as any program is.
"""

from __future__ import annotations

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.power.state import Level
from fleet_controller.hosts.power.station import Station, said
from fleet_controller.hosts.transport import Result

# https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainState, as `virsh domstate` words them
_LEVELS = {
    "running": Level.ON,
    "idle": Level.ON,
    "in shutdown": Level.FALLING,
    "dying": Level.FALLING,
    "shut off": Level.OFF,
}
_MEND = {"paused": "resume", "pmsuspended": "dompmwakeup", "crashed": "destroy"}


class Libvirt:
    blind = False

    def __init__(self, station: Station) -> None:
        self._station = station
        self._power = station.power
        self.who = f"libvirt{station.where}"

    def read(self) -> Level:
        result = self._virsh("domstate", self._power.call_timeout)
        state = result.stdout.decode("utf-8", "replace").strip()
        if result.status != 0:
            raise self._station.failure(
                "power",
                f"whether it is on is unknown: virsh{self._station.where} says: {said(result)}",
                f"Run `{self._line('domstate')}` by hand",
            )
        level = _LEVELS.get(state)
        if level is None:
            # It has its memory and does not run: neither switching it on nor waiting for it would end that.
            mend = _MEND.get(state, "destroy")
            raise self._station.failure(
                "power",
                f"its domain is neither on nor off: libvirt{self._station.where} says that it is {state or 'nothing'}",
                f"Run `{self._line(mend)}` if that is what you want",
            )
        return level

    def turn_on(self, within_s: float) -> None:
        self._order("start", within_s)

    def ask_off(self, within_s: float) -> bool:
        self._order("shutdown", within_s)
        return True

    def force_off(self, within_s: float) -> bool:
        self._order("destroy", within_s)
        return True

    def _order(self, verb: str, within_s: float) -> None:
        result = self._virsh(verb, within_s)
        if result.status != 0:
            raise self._station.failure(
                "power", f"virsh {verb} says: {said(result)}", f"Run `{self._line(verb)}` by hand"
            )

    def _virsh(self, verb: str, within_s: float) -> Result:
        # LC_ALL: the states are words, and virsh translates them
        timeout_s = min(within_s, self._power.call_timeout)
        return self._station.call(
            Command(self._argv(verb), env={"LC_ALL": "C"}, timeout_s=timeout_s), "libvirt-clients"
        )

    def _argv(self, verb: str) -> tuple[str, ...]:
        return ("virsh", "-q", "-c", self._power.uri, verb, "--domain", self._power.domain)

    def _line(self, verb: str) -> str:
        return Command(self._argv(verb)).line()
