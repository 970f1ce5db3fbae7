"""The inventory: machines, how they are reached, switched on and off, and what runs on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fleet_controller.spec.address import (
    BindAddress,
    HostAddress,
    HostName,
    Port,
    SshPort,
    UserName,
    address,
    is_ip,
    user,
)
from fleet_controller.spec.duration import Duration, PositiveDuration
from fleet_controller.spec.localpath import LocalPath
from fleet_controller.spec.part import Part, Text
from fleet_controller.spec.power import PowerSpec
from fleet_controller.spec.recycle import RecycleSpec
from fleet_controller.spec.size import Size
from fleet_controller.spec.telemetry import TelemetrySpec


def _jump(value: str) -> str:
    """NAME, or [USER@]HOST[:PORT]; which of the two is decided against the inventory."""
    who, at, rest = value.rpartition("@")
    if at:
        user(who)
    host, colon, port = rest.rpartition(":")
    if colon and port.isascii() and port.isdigit() and (":" not in host or host.startswith("[")):
        if not 0 < int(port[:6]) <= 65535:
            raise ValueError(f'"{port[:20]}" is not a port; write a number between 1 and 65535')
        rest = host
    address(rest.removeprefix("[").removesuffix("]"))
    return value


def _no_config(value: object) -> object:
    return None if value == "none" else value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value, re.ASCII):
        raise ValueError(f'"{value[:40]}" is not a device; write "auto", "cpu", "cuda" or "cuda:0"')
    return value


def remote_path(value: str) -> str:
    if not re.fullmatch(r"(~/|/)[^\x00-\x1f\x7f]*", value) or ".." in value.split("/"):
        raise ValueError(
            f'"{value[:70]}" is not a folder on the host; start it with "/" or "~/", without ".."'
        )
    return value


def program(value: str) -> str:
    if not re.fullmatch(r"(~/|/)?[A-Za-z0-9_.][^\x00-\x20\x7f]*", value):
        raise ValueError(
            f'"{value[:70]}" is not a program; write its name or its full path, without arguments'
        )
    return value


class SshSpec(Part):
    """How a host is reached."""

    user: UserName | None = Field(
        default=None, description="User to log in as; none: the user who runs fleetctl."
    )
    port: SshPort = Field(default=22, description="Port of the SSH server.")
    identity_file: LocalPath | None = Field(
        default=None, description="Private key file; none: the SSH agent and the usual files in ~/.ssh."
    )
    known_hosts: LocalPath = Field(
        default=Path("~/.ssh/known_hosts"),
        validate_default=True,
        description="Where host keys are looked up; unknown keys are refused.",
    )
    config: Annotated[LocalPath | None, BeforeValidator(_no_config)] = Field(
        default=Path("~/.ssh/config"),
        validate_default=True,
        description="OpenSSH's client configuration, for what is not said here; none: it is not read.",
    )
    jump: Annotated[str, AfterValidator(_jump)] | None = Field(
        default=None, description="Host of the inventory, or [USER@]HOST[:PORT], to go through (ProxyJump)."
    )
    connect_timeout: PositiveDuration = Field(default=10.0, description="How long connecting may take.")
    command_timeout: PositiveDuration = Field(
        default=60.0, description="How long an ordinary command may take."
    )
    keepalive: Duration = Field(
        default=15.0, description="How often an idle connection is proved alive; 0: never."
    )


class LimitsSpec(Part):
    """What the agent and all its processes may use together; what is not set is not limited."""

    memory: Size | None = Field(default=None, description="Memory of the machine, as 64GiB.")
    cpus: float | None = Field(default=None, gt=0, description="CPU time, in CPUs: 3.5 is three and a half.")
    tasks: int | None = Field(default=None, ge=16, description="Processes and threads.")
    open_files: int | None = Field(default=None, ge=64, description="Open files of each process.")


class AgentSpec(Part):
    """The server that runs on a host."""

    port: Port = Field(
        default=9400,
        description="Port of the agent; 0: the system picks one. Local hosts: 0 unless they say otherwise.",
    )
    listen: BindAddress | None = Field(
        default=None,
        description="Address to listen on; none: the host's address if it is an IP address, else 0.0.0.0 "
        "(local hosts: 127.0.0.1 unless they say otherwise).",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto", description='"auto" (a GPU if there is one), "cpu", "cuda" or "cuda:0".'
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads for the model; none: torch decides."
    )
    drain_timeout: Duration = Field(
        default=30.0, description="How long requests in flight may take to finish."
    )
    start_timeout: PositiveDuration = Field(
        default=600.0, description="How long starting and loading the models may take."
    )
    recycle: RecycleSpec = Field(
        default=RecycleSpec(), description="When workers are replaced, for models that leak memory."
    )
    telemetry: TelemetrySpec = Field(default=TelemetrySpec(), description="Where traces are sent.")
    supervisor: Literal["auto", "systemd", "systemd-user", "process"] = Field(
        default="auto",
        description='What keeps the agent running: a unit of "systemd" (root or sudo), of the user\'s own '
        '("systemd-user"), or a small "process" of ours; "auto": the first that can be had, local hosts: process.',
    )
    limits: LimitsSpec = Field(default=LimitsSpec(), description="What the agent may use of the machine.")
    writable: tuple[Annotated[str, AfterValidator(remote_path)], ...] = Field(
        default=(),
        description="Folders that models write to, caches of their own; a system unit can write nowhere else.",
    )


class InstallSpec(Part):
    """What is put on a host, and where."""

    python: Annotated[str, AfterValidator(program)] = Field(
        default="python3", description="Python on the host with which the environment is made."
    )
    interpreter: Annotated[str, AfterValidator(program)] | None = Field(
        default=None,
        description="Python that has everything already: nothing is installed. "
        "Local hosts: this one unless they say otherwise.",
    )
    pip_args: tuple[Text, ...] = Field(
        default=(), repr=False, description="More arguments for pip install, one a word."
    )
    directory: Annotated[str, AfterValidator(remote_path)] = Field(
        default="~/.fleetctl", description="Folder on the host for releases, environments and logs."
    )
    wheels: Literal["operator", "index"] = Field(
        default="operator",
        description='Who asks the package index: "operator": this machine, once, and hosts are sent the wheels; '
        '"index": each host by itself.',
    )
    rate_limit: Annotated[Size, Field(ge=1024)] | None = Field(
        default=None,
        description="Bytes a second, as 50MB, that go to all hosts with this same limit together; none: unlimited.",
    )
    keep_releases: int = Field(
        default=3, ge=2, le=100, description="Releases kept on the host, the one that runs among them."
    )


class Defaults(Part):
    """What holds for every host that does not say otherwise."""

    ssh: SshSpec = Field(default=SshSpec(), description="How hosts are reached.")
    power: PowerSpec = Field(default=PowerSpec(), description="How hosts are switched on and off.")
    agent: AgentSpec = Field(default=AgentSpec(), description="The server on each host.")
    install: InstallSpec = Field(default=InstallSpec(), description="What is put on hosts.")


class HostSpec(Part):
    """A machine that may run. In the file, name and address may hold ranges: one entry, many hosts."""

    name: HostName = Field(description='Name, or a range of names: "gpu-[01:16]".')
    address: HostAddress = Field(
        description='IP address, host name, a range of as many ("10.0.1.[11:26]"), or "local": this machine.'
    )
    zone: Text | None = Field(default=None, min_length=1, max_length=200, description="Rack or zone.")
    labels: dict[str, Text] = Field(default={}, description="Your own notes: KEY: VALUE.")
    price_per_hour: float | None = Field(
        default=None, ge=0, description="What an hour costs, in your currency."
    )
    device_memory_bytes: Size | None = Field(
        default=None,
        alias="device_memory",
        description="Device memory that may be used, as 8GiB; none: all that the device has.",
    )
    watts: float | None = Field(
        default=None, ge=0, description="What it draws while it serves; see controller.price_per_kwh."
    )
    speed: float | None = Field(
        default=None, gt=0, description="How fast it is, 2 being twice as fast as 1; none: it is learned."
    )
    spot: bool = Field(
        default=False, description="May be taken away at any time: for servers above min_servers."
    )
    protect: bool = Field(default=False, description="Never chosen when servers are removed.")
    ssh: SshSpec = Field(default=SshSpec(), description="How the host is reached.")
    power: PowerSpec = Field(default=PowerSpec(), description="How the host is switched on and off.")
    agent: AgentSpec = Field(default=AgentSpec(), description="The server on the host.")
    install: InstallSpec = Field(default=InstallSpec(), description="What is put on the host.")

    @property
    def is_local(self) -> bool:
        return self.address == "local"

    @property
    def bind_address(self) -> str:
        """Where the agent listens, `agent.listen` or what follows from the host's address."""
        if self.agent.listen is not None:
            return "127.0.0.1" if self.agent.listen == "local" else self.agent.listen
        return "127.0.0.1" if self.is_local else self.address if is_ip(self.address) else "0.0.0.0"
