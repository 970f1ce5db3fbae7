"""driver: none. A machine whose power nobody controls: it is taken as on."""

from __future__ import annotations

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.power.state import Reading


class NoPower:
    def __init__(self, host: str) -> None:
        self._host = host

    def status(self) -> Reading:
        return Reading("uncontrolled")

    def powered(self) -> bool | None:
        return None

    def on(self) -> bool:
        return False

    def off(self) -> bool:
        raise HostFailure(
            self._host,
            "power",
            "it cannot be switched off: it has no power control",
            "Set power.driver in fleet.yaml; docs/hosts.md lists the drivers",
        )
