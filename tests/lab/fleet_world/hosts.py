"""Hosts of the world: machines with a keeper and at most one agent, and a way there that breaks in all known ways.

What a keeper does goes on when nobody listens any more, unless the host goes down: that is how SSH half-succeeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import AgentProcess, Installed, Probe, Stopped
from fleet_controller.hosts.power import Reading
from fleet_wire.agent import RunFile
from fleet_world.baton import Baton, Mutex, Task
from fleet_world.log import Log

CONNECT_S = 10.0


@dataclass
class Agent:
    pid: int
    action_id: str
    release: str
    port: int
    born: float
    ready_at: float
    boot: int = 1
    alive: bool = True
    hung: bool = False
    failed: bool = False
    busy_s: float = 0.0
    completed: int = 0
    fed: float = 0.0

    def state(self, now: float) -> str:
        return "failed" if self.failed else "ready" if now >= self.ready_at else "loading"

    def serves(self, now: float) -> bool:
        return self.alive and not self.hung and self.state(now) == "ready"


class Gone(Exception):
    """The host went down while its keeper was at work."""


class Host:
    """One machine. `power`: it can be switched. The faults are switches that the world's fate turns."""

    def __init__(self, name: str, baton: Baton, dice: random.Random, log: Log, power: bool) -> None:
        self.name = name
        self.baton = baton
        self.dice = dice
        self.log = log
        self.power = power
        self.up = not power
        self.power_silent = False
        self.boot = 1
        self.agent: Agent | None = None
        self.installed: set[str] = set()
        # faults
        self.refuses = False
        self.blackholed = False
        self.http_cut = False
        self.half = 0.0  # share of the errands whose answer is lost or late
        self.starts_fail = False
        self.load_s = dice.uniform(2.0, 25.0)
        # the witness
        self.launches: dict[str, int] = {}
        self.excused: dict[str, int] = {}
        self.killed_by_us = 0
        self._keeper = Mutex(baton)
        self._pids = 100

    # what happens to it

    def agent_ends(self, why: str) -> None:
        """Its agent ends without being asked to."""
        if self.agent is not None and self.agent.alive:
            self.agent.alive = False
            self.excused[self.agent.action_id] = self.excused.get(self.agent.action_id, 0) + 1
            self.log.add(self.baton.now, self.name, f"agent-{why}", action=self.agent.action_id)

    def goes_down(self) -> None:
        self.agent_ends("lost-with-host")
        self.up = False
        self.boot += 1
        self._keeper = Mutex(self.baton)
        self.log.add(self.baton.now, self.name, "down")

    def comes_up(self) -> None:
        if not self.up:
            self.up = True
            self.boot += 1
            self.log.add(self.baton.now, self.name, "up")

    # what its keeper does

    def takes(self, seconds: float) -> None:
        boot = self.boot
        self.baton.sleep(seconds)
        if boot != self.boot or not self.up:
            raise Gone

    def probe(self) -> Probe:
        self.takes(0.05)
        agent = self.agent
        found = None
        if agent is not None:
            found = AgentProcess(
                agent.pid,
                agent.alive,
                agent.port,
                agent.action_id,
                agent.release,
                rebooted=not agent.alive and agent.boot != self.boot,
            )
        return Probe(str(self.boot), self.name, found)

    def install(self, key: str) -> Installed:
        if key not in self.installed:
            self.takes(self.dice.uniform(0.5, 5.0))
            self.installed.add(key)
            return Installed(key, 1000)
        self.takes(0.05)
        return Installed(key, 0)

    def start(self, key: str, action_id: str) -> RunFile:
        with self._locked(60.0):
            self.takes(0.1)
            agent = self.agent
            if agent is not None and agent.alive and agent.action_id != action_id:
                raise self._trouble("conflict", "an agent of another start already runs")
            if agent is None or not agent.alive:
                if key not in self.installed:
                    raise self._trouble("release", f"release {key} is not installed here")
                agent = self._launch(key, action_id)
            self.takes(self.dice.uniform(0.1, 2.0))
            if not agent.alive:
                raise self._trouble("start", "the agent ended before it listened")
            return RunFile(
                pid=agent.pid,
                start_ticks=agent.pid,
                boot_id=str(self.boot),
                port=agent.port,
                action_id=agent.action_id,
                release=agent.release,
            )

    def _launch(self, key: str, action_id: str) -> Agent:
        now = self.baton.now
        self._pids += 1
        self.launches[action_id] = self.launches.get(action_id, 0) + 1
        self.log.add(now, self.name, "launch", action=action_id, release=key)
        ready_at = now + self.load_s * self.dice.uniform(0.8, 1.2)
        self.agent = Agent(self._pids, action_id, key, 9400, now, ready_at, boot=self.boot, fed=now)
        if self.starts_fail:
            if self.dice.random() < 0.5:
                self.agent_ends("exits")
            else:
                self.agent.failed = True
        return self.agent

    def stop(self, grace_s: float) -> Stopped:
        with self._locked(grace_s + 15.0):
            agent = self.agent
            self.takes(0.05)
            was = agent is not None and agent.alive
            if agent is not None and agent.alive:
                self.log.add(self.baton.now, self.name, "stop", action=agent.action_id)
                self.takes(min(grace_s, self.dice.uniform(0.1, 1.0)) if not agent.hung else grace_s)
                agent.alive = False
                self.killed_by_us += 1
            self.agent = None
            return Stopped(was, (), agent.port if agent is not None else 0)

    def tail(self) -> str:
        self.takes(0.05)
        return "last words"

    def _trouble(self, kind: str, cause: str) -> HostFailure:
        return HostFailure(self.name, kind, cause, "see the log")

    @contextmanager
    def _locked(self, _wait_s: float) -> Iterator[None]:
        keeper, boot = self._keeper, self.boot
        with keeper:
            if boot != self.boot:
                raise Gone
            yield


class FakeMachine:
    """The controller's side of one host. `touch` hears of every effect before and after it."""

    def __init__(self, host: Host, spec: Any, touch: Callable[[str], None]) -> None:
        self.name = host.name
        self.spec = spec
        self._host = host
        self._touch = touch

    def probe(self) -> Probe:
        found: Probe = self._errand(self._host.probe, 30.0)
        return found

    def install(self, release: Any, progress: Callable[[str], None] = lambda text: None) -> Installed:
        progress(f"sending release {release.key}")
        done: Installed = self._effect("install", lambda: self._host.install(release.key), 300.0)
        return done

    def start(
        self,
        release: Any,
        models: Any,
        action_id: str,
        token: str,
        target: Any,
        tell: Callable[[str], None] = lambda text: None,
    ) -> RunFile:
        run: RunFile = self._effect("start", lambda: self._host.start(release.key, action_id), 100.0)
        return run

    def stop(self, grace_s: float) -> Stopped:
        proof: Stopped = self._effect("stop", lambda: self._host.stop(grace_s), 2 * grace_s + 60.0)
        return proof

    def tail(self, lines: int = 100) -> str:
        return str(self._errand(self._host.tail, 30.0))

    def agent_url(self, port: int) -> str:
        return f"http://{self.name}:{port}"

    def powered(self) -> bool | None:
        if not self._host.power:
            return None
        self._control(0.05)
        return self._host.up

    def power_status(self) -> Reading:
        try:
            return Reading("on" if self.powered() else "off")
        except HostFailure as failure:
            return Reading("unknown", failure.cause)

    def _control(self, takes_s: float) -> None:
        """Whoever controls the power: it may not answer at all."""
        host = self._host
        host.baton.sleep(20.0 if host.power_silent else takes_s)
        if host.power_silent:
            raise HostFailure(self.name, "power", "its BMC does not answer", "reset the BMC")

    def power_on(self) -> bool:
        self._touch("machine.power_on.before")
        host = self._host
        self._control(0.05)
        was = host.up
        if was:
            return False
        host.log.add(host.baton.now, host.name, "power-on")
        host.baton.spawn("boot", host.comes_up, after_s=host.dice.uniform(5.0, 40.0))
        host.baton.sleep(0.2)
        self._touch("machine.power_on.after")
        return not was

    def power_off(self) -> bool:
        self._touch("machine.power_off.before")
        self._control(0.05)
        was = self._host.up
        if was:
            self._host.goes_down()
        self._host.baton.sleep(0.2)
        self._touch("machine.power_off.after")
        return was

    def _effect(self, name: str, work: Callable[[], Any], timeout_s: float) -> Any:
        self._touch(f"machine.{name}.before")
        done = self._errand(work, timeout_s)
        self._touch(f"machine.{name}.after")
        return done

    def _errand(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """Have the keeper do it; HostFailure as the real way there would."""
        host, baton, dice = self._host, self._host.baton, self._host.dice
        baton.sleep(dice.uniform(0.01, 0.2))
        if host.blackholed:
            baton.sleep(CONNECT_S)
            raise HostFailure(self.name, "timeout", "no answer", "check the network")
        if host.refuses or not host.up:
            raise HostFailure(self.name, "refused", "nothing listens", "check the host")
        fate = dice.random()
        lost, late = fate < host.half / 2, host.half / 2 <= fate < host.half
        caller, answer = baton.current(), _Answer()

        def keeper() -> None:
            try:
                if late:
                    host.takes(dice.uniform(0.0, timeout_s))
                answer.value = work()
            except (HostFailure, Gone) as failure:
                answer.failure = failure
            answer.done = True
            if answer.awaited and not lost and not late:
                baton.wake(caller)

        boot = host.boot
        baton.spawn(f"keeper-{host.name}", keeper)
        if lost:
            baton.sleep(dice.uniform(0.0, 3.0))
            raise HostFailure(self.name, "lost", "the connection broke", "look again")
        if not answer.done:
            answer.awaited = True
            baton.sleep(timeout_s)
            answer.awaited = False
        if not answer.done or late:
            raise HostFailure(self.name, "timeout", f"no answer in {timeout_s:.0f} s", "look again")
        if isinstance(answer.failure, Gone) or boot != host.boot:
            raise HostFailure(self.name, "lost", "the connection broke", "look again")
        if answer.failure is not None:
            raise answer.failure
        return answer.value


@dataclass
class _Answer:
    value: Any = None
    failure: Exception | None = None
    done: bool = False
    awaited: bool = False
    task: Task | None = None
