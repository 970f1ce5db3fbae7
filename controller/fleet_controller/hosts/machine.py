"""One machine of the fleet and everything that is done to it; all machines of a fleet with their connections."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fleet_controller import failpoint
from fleet_controller.hosts.errand import run_errand
from fleet_controller.hosts.failure import printable
from fleet_controller.hosts.local import LocalTransport
from fleet_controller.hosts.power import Power, Reading, make_power
from fleet_controller.hosts.power.wol import Sign
from fleet_controller.hosts.release import Release
from fleet_controller.hosts.ssh.connection import Connections
from fleet_controller.hosts.ssh.transport import SshTransport
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec import FleetSpec, HostSpec, LatencyTarget, ModelSpec
from fleet_controller.spec.command import CommandSpec
from fleet_controller.spec.weights import TensorSpec
from fleet_wire.agent import (
    AgentConfig,
    ComputeConfig,
    ModelConfig,
    RecycleConfig,
    RunFile,
    TelemetryConfig,
    TensorConfig,
    WeightsFile,
)
from fleet_wire.command import CommandConfig, MetricNames

# The agent listens before it loads its models; what takes long until then is importing torch from a cold disk.
LISTEN_TIMEOUT_S = 120.0
ENVIRONMENT_TIMEOUT_S = 3600.0
# Slower than this a transfer is given up: 1 MB/s and a minute.
_SLOWEST_BYTES_PER_S = 1e6
_KEEP_ARCHIVE_S = 3600.0
# A machine that is off does not answer; asking it must not cost much.
RING_S = 2.0


@dataclass(frozen=True)
class AgentProcess:
    """The agent that a host last ran. `port` 0: it does not listen yet. Not `alive`: it died without being stopped."""

    pid: int
    alive: bool
    port: int
    action_id: str
    release: str


@dataclass(frozen=True)
class Probe:
    """What a host says about itself. A new `boot_id` means that it was restarted."""

    boot_id: str
    machine_id: str
    agent: AgentProcess | None


@dataclass(frozen=True)
class Installed:
    """`sent_bytes` went over the wire: 0 when the release was there."""

    key: str
    sent_bytes: int


@dataclass(frozen=True)
class Stopped:
    """Proof that nothing of the agent is left. `killed` names what did not end by itself."""

    was_running: bool
    killed: tuple[str, ...]
    port: int


class Machine:
    """One host. Every method raises HostFailure, and waits no longer than the host's time-outs allow."""

    def __init__(
        self, spec: FleetSpec, host: HostSpec, transport: Transport, power: Power, archives: Archives
    ) -> None:
        self.name = host.name
        self.spec = host
        self._fleet = spec.fleet
        self._transport = transport
        self._power = power
        self._archives = archives
        install = host.install
        self._interpreter = install.interpreter or (sys.executable if host.is_local else None)
        self._keeper_python = sys.executable if host.is_local else install.python

    def __repr__(self) -> str:
        return f"<Machine {self.name} at {self.spec.address}>"

    def probe(self) -> Probe:
        answer = self._ask("probe")
        agent = answer["agent"]
        if agent is not None:
            agent = AgentProcess(
                pid=int(agent["pid"]),
                alive=bool(agent["alive"]),
                port=int(agent["port"]),
                action_id=printable(str(agent["action_id"])),
                release=printable(str(agent["release"])),
            )
        return Probe(printable(answer["boot_id"]), printable(answer["machine_id"]), agent)

    @failpoint.around("machine.install")
    def install(self, release: Release, progress: Callable[[str], None] = lambda text: None) -> Installed:
        """Put the release and what it needs on the host; what is there and whole is left alone."""
        wanted = self._wanted(release)
        state = self._ask("prepare", **wanted, size=release.size, timeout_s=120)
        sent = 0
        if not state["present"]:
            archive, digest = self._archives.get(release)
            sent = archive.stat().st_size
            progress(f"sending release {release.key} ({sent / 1e6:.1f} MB)")
            self._transport.put(archive, state["upload"], 0o600)
            timeout = 60 + sent / _SLOWEST_BYTES_PER_S
            self._ask("unpack", key=release.key, upload=state["upload"], sha256=digest, timeout_s=timeout)
        if not state["ready"]:
            self._ask(
                "environment",
                **wanted,
                requirements=release.requirements,
                requirement_files=release.requirement_files,
                pip_args=self.spec.install.pip_args,
                timeout_s=ENVIRONMENT_TIMEOUT_S,
                progress=progress,
            )
        return Installed(release.key, sent)

    @failpoint.around("machine.start")
    def start(
        self,
        release: Release,
        models: Sequence[ModelSpec],
        action_id: str,
        token: str,
        target: LatencyTarget | None = None,
    ) -> RunFile:
        """Start the agent, or find the one that this action started. Returns once it listens. `target`: the pool's, for
        the capacity that the agent tells."""
        host = self.spec
        config = AgentConfig(
            fleet=self._fleet,
            host=self.name,
            action_id=action_id,
            release=release.key,
            listen=f"{_bracketed(host.bind_address)}:{host.agent.port}",
            device=host.agent.device,
            threads=host.agent.threads,
            models=[_model_config(model) for model in models],
            device_memory_total_bytes=host.device_memory_bytes,
            drain_timeout_s=host.agent.drain_timeout,
            latency_target_ms=None if target is None else target.target_ms,
            latency_percentile=95.0 if target is None else target.percentile,
            recycle=RecycleConfig(**host.agent.recycle.model_dump()),
            telemetry=TelemetryConfig(**host.agent.telemetry.model_dump()),
        )
        wait = min(LISTEN_TIMEOUT_S, host.agent.start_timeout)
        answer = self._ask(
            "start",
            **self._wanted(release),
            config=config.model_dump(mode="json"),
            token=token,
            action_id=action_id,
            port=host.agent.port,
            wait_s=wait,
            timeout_s=2 * wait + 60,
        )
        return RunFile.model_validate(answer)

    @failpoint.around("machine.stop")
    def stop(self, grace_s: float) -> Stopped:
        """End the agent: SIGTERM, `grace_s` seconds, SIGKILL for it and all that it started; then prove it."""
        answer = self._ask("stop", grace_s=grace_s, timeout_s=2 * grace_s + 60)
        killed = tuple(printable(name) for name in answer["killed"])
        return Stopped(bool(answer["was_running"]), killed, int(answer["port"]))

    def tail(self, lines: int = 100) -> str:
        """The last lines of the agent's log, at most 1 MiB, safe to print."""
        return printable(self._ask("tail", lines=lines)["text"])

    def agent_url(self, port: int) -> str:
        bind = self.spec.bind_address
        wildcard = bind in ("0.0.0.0", "::")
        address = (
            self.spec.address if wildcard and not self.spec.is_local else "127.0.0.1" if wildcard else bind
        )
        return f"http://{_bracketed(address)}:{port}"

    def power_status(self) -> Reading:
        """What its power control says now; unknown with the reason where that can't be asked. Never raises."""
        return self._power.status()

    def powered(self) -> bool | None:
        """None: this machine has no power control."""
        return self._power.powered()

    @failpoint.around("machine.power_on")
    def power_on(self) -> bool:
        """False when it was on, or has no power control."""
        return self._power.on()

    @failpoint.around("machine.power_off")
    def power_off(self) -> bool:
        """False when it was off. Its connection is closed afterwards."""
        done = self._power.off()
        self._transport.close()
        return done

    def _wanted(self, release: Release) -> dict[str, Any]:
        return {
            "key": release.key,
            "environment": release.environment_key(self.spec.install.pip_args),
            "interpreter": self._interpreter,
            "python": self.spec.install.python,
        }

    def _ask(
        self,
        errand: str,
        *,
        timeout_s: float | None = None,
        progress: Callable[[str], None] | None = None,
        **args: Any,
    ) -> dict[str, Any]:
        directory, *below = self._archives.place(self.spec, self._fleet)
        place = {"directory": directory, "below": below, "fleet": self._fleet, "host": self.name}
        return run_errand(
            self._transport, self.name, self._keeper_python, errand, {**place, **args}, timeout_s, progress
        )


def _model_config(model: ModelSpec) -> ModelConfig:
    return ModelConfig(
        name=model.name,
        version=model.version,
        path=f"models/{model.name}",  # in the release's folder; the keeper knows where that is
        format=model.format,
        entrypoint=model.entrypoint,
        weights=[WeightsFile(**pin.model_dump()) for pin in model.weights],
        inputs=[_tensor(tensor) for tensor in model.inputs],
        outputs=[_tensor(tensor) for tensor in model.outputs],
        compute=ComputeConfig(**model.compute.model_dump()),
        max_batch_size=model.batching.max_batch_size,
        max_queue_delay_ms=model.batching.max_queue_delay_ms,
        max_queue_size=model.batching.max_queue_size,
        device_memory_bytes=model.device_memory_bytes,
        options=model.options,
        runtime=model.runtime,
        command=None if model.command is None else _command(model.command),
    )


def _command(command: CommandSpec) -> CommandConfig:
    metrics = command.metrics
    return CommandConfig(
        argv=list(command.argv),
        env=command.env,
        folder=command.folder,
        port=command.port,
        health=command.health,
        health_interval_s=command.health_interval,
        paths=list(command.paths),
        served_name=command.served_name,
        max_in_flight=command.max_in_flight,
        start_timeout_s=command.start_timeout,
        hang_timeout_s=command.hang_timeout,
        stop_signal=command.stop_signal,
        stop_grace_s=command.stop_grace,
        metrics=None if metrics is None else MetricNames(**metrics.model_dump()),
    )


def _tensor(tensor: TensorSpec) -> TensorConfig:
    return TensorConfig(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


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


class Archives:
    """The operator's side of installing: packed releases, kept once for all hosts in `folder`/releases."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._packed: dict[str, tuple[Path, str]] = {}

    def place(self, host: HostSpec, fleet: str) -> tuple[str, ...]:
        """Where a host's files are, as a folder and what is below it."""
        if host.is_local:
            return (str(self._folder.resolve() / "hosts" / host.name),)
        return (host.install.directory, fleet, host.name)

    def get(self, release: Release) -> tuple[Path, str]:
        """The packed release and its sha256. Older ones are removed; who still sends one has it open."""
        with self._lock:
            folder = self._folder / "releases"
            packed = self._packed.get(release.key)
            if packed is None or not packed[0].exists():
                # What an earlier run of this program packed is not taken on trust.
                packed = self._packed[release.key] = release.archive(folder)
                for old in folder.glob("*.tar"):
                    # Another fleetctl may be about to send one that it has just packed.
                    if old != packed[0] and time.time() - old.stat().st_mtime > _KEEP_ARCHIVE_S:
                        old.unlink(missing_ok=True)
            return packed


class Machines:
    """The machines of a fleet. One SSH connection per host, shared by all who use it; safe for threads.

    `folder` is the state folder: local hosts live in it, and packed releases.
    """

    def __init__(self, spec: FleetSpec, folder: Path) -> None:
        self._spec = spec
        self._archives = Archives(folder)
        self._connections = Connections(spec)
        self._secrets = frozenset(name for host in spec.hosts if (name := host.power.password_env))
        self._lock = threading.Lock()
        self._machines: dict[str, Machine] = {}

    def machine(self, name: str) -> Machine:
        """Raises UnknownName. Nothing is connected before it is used."""
        with self._lock:
            if name not in self._machines:
                host = self._spec.host(name)
                own = self._transport(host)
                power = make_power(host, self._power_transport(host), own, Bell(self._connections, host))
                self._machines[name] = Machine(self._spec, host, own, power, self._archives)
            return self._machines[name]

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
