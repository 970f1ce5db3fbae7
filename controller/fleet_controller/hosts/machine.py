"""One machine of the fleet and everything that is done to it."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fleet_controller import failpoint
from fleet_controller.hosts.agentconfig import agent_config, bracketed
from fleet_controller.hosts.command import Command
from fleet_controller.hosts.errand import run_errand
from fleet_controller.hosts.failure import printable
from fleet_controller.hosts.grown import Grown
from fleet_controller.hosts.install.installer import Installed, Installer, Stock
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.target import Target
from fleet_controller.hosts.parcel import may_become_root, module_text
from fleet_controller.hosts.power import Power, Reading
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.hosts.transport import Hear, Transport
from fleet_controller.spec import FleetSpec, HostSpec, LatencyTarget, ModelSpec
from fleet_wire.agent import RunFile

# The agent listens before it loads its models; what takes long until then is importing torch from a cold disk.
LISTEN_TIMEOUT_S = 120.0
# Beyond what was to be waited for: a slow machine, and the way there and back.
FOLLOW_SLACK_S = 20.0
EXECUTE_SLACK_S = 30.0


@dataclass(frozen=True)
class AgentProcess:
    """The agent that a host last ran. `port` 0: it does not listen yet. Not `alive`: it died without being stopped.

    Alive is also one that its supervisor is about to start again (`pid` 0 then). `restarts`: how often it did so since
    the start; `last_end`: how the agent ended last, in words. `rebooted`: it ran before the machine was started again.
    """

    pid: int
    alive: bool
    port: int
    action_id: str
    release: str
    restarts: int = 0
    last_end: str = ""
    rebooted: bool = False


@dataclass(frozen=True)
class Probe:
    """What a host says about itself. A new `boot_id` means that it was restarted."""

    boot_id: str
    machine_id: str
    agent: AgentProcess | None


@dataclass(frozen=True)
class Stopped:
    """Proof that nothing of the agent is left: no process, no device memory, no open port.

    `killed` names what did not end by itself; `notes`: strangers that hold device memory, and what was not checked.
    """

    was_running: bool
    killed: tuple[str, ...]
    port: int
    notes: tuple[str, ...] = ()


class Machine:
    """One host. Every method raises HostFailure, and waits no longer than the host's time-outs allow."""

    def __init__(
        self,
        spec: FleetSpec,
        host: HostSpec,
        transport: Transport,
        power: Power,
        stock: Stock,
        place: tuple[str, ...],
        sudo: SudoPassword,
    ) -> None:
        self.name = host.name
        self.spec = host
        self._fleet = spec.fleet
        self._transport = transport
        self._power = power
        self._place = place
        self._sudo = sudo
        install = host.install
        self._interpreter = install.interpreter or (sys.executable if host.is_local else None)
        self._keeper_python = sys.executable if host.is_local else install.python
        self._installer = Installer(host.name, install, self._interpreter, self._ask, transport, stock)

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
                restarts=int(agent["restarts"]),
                last_end=printable(str(agent["last_end"])),
                rebooted=not agent["alive"] and agent.get("boot_id") not in (None, answer["boot_id"]),
            )
        return Probe(printable(answer["boot_id"]), printable(answer["machine_id"]), agent)

    @failpoint.around("machine.install")
    def install(self, release: Release, progress: Callable[[str], None] = lambda text: None) -> Installed:
        """Put the release and what it needs on the host; what is there and whole is left alone."""
        return self._installer.install(release, progress)

    def target(self) -> Target | None:
        """For which wheels the host is; None where no environment is made there, or by its own package index."""
        return self._installer.target()

    @failpoint.around("machine.start")
    def start(
        self,
        release: Release,
        models: Sequence[ModelSpec],
        action_id: str,
        token: str,
        target: LatencyTarget | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> RunFile:
        """Start the agent, or find the one that this action started. Returns once it listens.

        `target`: the pool's, for the capacity that the agent tells. `tell` hears what an operator should know: limits
        that don't hold on this host, strangers on its GPU.
        """
        host = self.spec
        config = agent_config(self._fleet, host, models, release.key, action_id, target)
        wait = min(LISTEN_TIMEOUT_S, host.agent.start_timeout)
        answer = self._ask(
            "start",
            **self._installer.wanted(release),
            config=config.model_dump(mode="json"),
            token=token,
            action_id=action_id,
            port=host.agent.port,
            supervisor="process"
            if host.is_local and host.agent.supervisor == "auto"
            else host.agent.supervisor,
            limits=host.agent.limits.model_dump(),
            writable=list(host.agent.writable),
            program=module_text("supervision.program"),
            wait_s=wait,
            timeout_s=2 * wait + 60,
        )
        for note in answer.pop("notes"):
            tell(printable(note))
        return RunFile.model_validate(answer)

    @failpoint.around("machine.stop")
    def stop(self, grace_s: float) -> Stopped:
        """End the agent: SIGTERM, `grace_s` seconds, SIGKILL for it and all that it started; then prove it."""
        answer = self._ask("stop", grace_s=grace_s, timeout_s=2 * grace_s + 90)
        killed = tuple(printable(name) for name in answer["killed"])
        notes = tuple(printable(note) for note in answer["notes"])
        return Stopped(bool(answer["was_running"]), killed, int(answer["port"]), notes)

    def tail(self, lines: int = 100) -> str:
        """The last lines of the agent's log, at most 1 MiB, safe to print."""
        return printable(self._ask("tail", lines=lines)["text"])

    def follow(
        self, cursor: str | None, *, lines: int = 100, since_s: float | None = None, wait_s: float = 0.0
    ) -> Grown:
        """The end of the agent's log where `cursor` is None; else what came behind it, waited for at most `wait_s`."""
        answer = self._ask(
            "follow",
            cursor=cursor,
            lines=lines,
            since_s=since_s,
            wait_s=wait_s,
            timeout_s=wait_s + FOLLOW_SLACK_S,
        )
        told = [printable(line.replace("\r", "").replace("\n", " ")) for line in answer["lines"]]
        return Grown(told, str(answer["cursor"]), bool(answer["lost"]), int(answer["utc_offset_s"]))

    def reach(self) -> None:
        """Connect and log in, unless that is done."""
        self._transport.run(Command(("true",)))

    def execute(
        self,
        argv: Sequence[str],
        hear: Hear,
        hear_error: Hear,
        *,
        limit_s: float,
        sudo: bool = False,
        stdin: bytes = b"",
    ) -> int | None:
        """Run an operator's command with exactly these arguments; its exit status, None: it was ended after `limit_s`.

        Its output is heard as it comes. It ends when the connection does, and so when this process does.
        """
        answer = self._ask(
            "execute",
            argv=list(argv),
            stdin=base64.b64encode(stdin).decode(),
            sudo=sudo,
            limit_s=limit_s,
            timeout_s=limit_s + EXECUTE_SLACK_S,
            streams=(hear, hear_error),
        )
        return None if answer["status"] is None else int(answer["status"])

    def examine(self, timeout_s: float) -> dict[str, Any]:
        """What the host says of itself, for the doctor: {fact: {"value": ...} or {"trouble": why it is not known}}."""
        return self._ask(
            "examine",
            python=self.spec.install.python,
            interpreter=self._interpreter,
            port=self.spec.agent.port,
            timeout_s=timeout_s,
        )

    def moment(self) -> float:
        """What time it is there, Unix seconds."""
        return float(self._ask("moment")["now"])

    def knock(self, word: str, wait_s: float, listening: Callable[[], None]) -> tuple[bool, str]:
        """Have the host listen on the agent's port for `wait_s`; `listening` is called once it does. Whether it
        heard `word`, and why it can't listen there, "" where it can."""
        answer = self._ask(
            "knock",
            address=self.spec.bind_address,
            port=self.spec.agent.port,
            word=word,
            wait_s=wait_s,
            timeout_s=wait_s + FOLLOW_SLACK_S,
            progress=lambda said: listening(),
        )
        return bool(answer["heard"]), printable(str(answer.get("deaf") or ""))

    def mend(self, name: str) -> str:
        """Do one of the doctor's safe mends (keeper/errands/mend.py); what was done."""
        return printable(str(self._ask("mend", mend=name)["said"]))

    @property
    def transport(self) -> Transport:
        """The way there, for who measures it."""
        return self._transport

    def agent_url(self, port: int) -> str:
        bind = self.spec.bind_address
        wildcard = bind in ("0.0.0.0", "::")
        address = (
            self.spec.address if wildcard and not self.spec.is_local else "127.0.0.1" if wildcard else bind
        )
        return f"http://{bracketed(address)}:{port}"

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

    def _ask(
        self,
        errand: str,
        *,
        timeout_s: float | None = None,
        progress: Callable[[str], None] | None = None,
        streams: tuple[Hear, Hear] | None = None,
        **args: Any,
    ) -> dict[str, Any]:
        directory, *below = self._place
        place = {"directory": directory, "below": below, "fleet": self._fleet, "host": self.name}
        if self._sudo.value is not None and may_become_root(errand):
            args["sudo_password"] = self._sudo.value
        return run_errand(
            self._transport,
            self.name,
            self._keeper_python,
            errand,
            {**place, **args},
            timeout_s,
            progress,
            streams,
        )
