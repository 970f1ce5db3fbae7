"""Where the power of a machine is controlled from: this machine, or the host that `power.via` names."""

from __future__ import annotations

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.transport import Result, Transport
from fleet_controller.spec import HostSpec


class Station:
    """Runs the programs of a driver. `where` is part of a sentence: " (run on h1)", or nothing."""

    def __init__(self, host: HostSpec, transport: Transport) -> None:
        self.host = host
        self.power = host.power
        self.where = f" (run on {host.power.via})" if host.power.via else ""
        self._transport = transport

    @property
    def remote(self) -> bool:
        return self.power.via is not None

    def run(self, command: Command) -> Result:
        """Raises HostFailure, which names the host that is to be switched, and `via` where that is the trouble."""
        try:
            return self._transport.run(command)
        except HostFailure as failure:
            if self.power.via is None:
                raise
            cause = f"its power control does not work: {self.power.via}: {failure.cause}"
            raise HostFailure(
                self.host.name, failure.kind, cause, failure.next_step, self.power.via
            ) from failure

    def call(self, command: Command, package: str) -> Result:
        """As `run`, for a program that a Debian package brings: one that is not there says so."""
        result = self.run(command)
        if result.status == 127:
            program = command.argv[0]
            where = self.power.via or "this machine"
            raise self.failure(
                "config",
                f"{program} is not installed on {where}, and power.driver: {self.power.driver} needs it",
                f"Run there: apt-get install {package}",
            )
        return result

    def failure(self, kind: str, cause: str, next_step: str) -> HostFailure:
        return HostFailure(self.host.name, kind, cause, next_step)


def said(result: Result) -> str:
    """What a program answered, for the middle of a sentence."""
    return brief(result.stderr) or brief(result.stdout) or "nothing"
