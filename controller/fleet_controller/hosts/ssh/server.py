"""Where and as whom to log in, with which keys, and whose host keys are believed. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.ssh.known_hosts import known_names


@dataclass(frozen=True)
class KeyChoice:
    """With which keys to log in, in the order of `files`.

    `required`: the one file was named in fleet.yaml, and nothing else will do. `only`: of the agent's keys those
    alone that are in `files` (IdentitiesOnly). `agent`: its socket; None: no agent is asked.
    """

    files: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    required: bool = False
    only: bool = False
    agent: str | None = None


@dataclass(frozen=True)
class Server:
    """One SSH server. `label` is how messages name it; times in seconds."""

    label: str
    address: str
    port: int
    user: str
    keys: KeyChoice
    known_hosts: tuple[Path, ...]
    key_alias: str | None
    connect_timeout: float
    command_timeout: float
    keepalive: float

    @property
    def known_name(self) -> str:
        """How known_hosts names it."""
        return self.known_names[0]

    @property
    def known_names(self) -> tuple[str, ...]:
        """Every name under which it may stand there; a HostKeyAlias is the only one, as in OpenSSH."""
        return (self.key_alias.lower(),) if self.key_alias else known_names(self.address, self.port)

    @property
    def principal(self) -> str:
        """The name that a host certificate must have."""
        return (self.key_alias or self.address).lower()

    @property
    def where(self) -> str:
        return f"{self.address} port {self.port}"

    def failure(self, kind: str, cause: str, next_step: str) -> HostFailure:
        return HostFailure(self.label, kind, cause, next_step)

    def lost(self, doing: str, error: BaseException | None) -> HostFailure:
        """The connection broke while `doing`, so its outcome is unknown."""
        why = brief(str(error)) if error is not None else ""
        return self.failure(
            "lost",
            f"the connection broke while {doing}" + (f" ({why})" if why else ""),
            "Check the machine and the network; whether it was done shows `fleetctl status`",
        )
