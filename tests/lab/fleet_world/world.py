"""World: one fleet from one seed: its controller process, its faults, and what must hold all the time."""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fleet_controller.actuate import Site
from fleet_controller.clock import SteadyClock
from fleet_controller.door.admin import FrontDoorError
from fleet_controller.failpoint import FailpointReached
from fleet_controller.fleetfile import IN_FORCE
from fleet_controller.journal import JournalError
from fleet_controller.lifecycle import GOING_DOWN, HostState
from fleet_controller.loop import Loop
from fleet_controller.observe import HostReport, Observation, Target
from fleet_controller.outside import Outside
from fleet_controller.pulse import LOOP_S, Pulse
from fleet_controller.requests import Refused
from fleet_controller.spec import FleetSpec, SpecError
from fleet_controller.spec.problem import Problem
from fleet_wire.agent import AgentStatus, DeviceMemory, ModelStatus
from fleet_wire.histogram import HistogramWire, LatencyHistogram
from fleet_world.baton import Baton, Bell
from fleet_world.door import Balancer, WorldDoorkeeper
from fleet_world.hosts import FakeMachine, Host
from fleet_world.journal import MemoryJournal, Store
from fleet_world.log import Log

EPOCH = 1_790_000_000.0
EMPTY: HistogramWire = LatencyHistogram().to_wire()
# The controller may act on what it saw before a fault began: one look, with all its time-outs.
REACTION_S = 30.0


# A host that failed and is not needed stays so: there is nothing to mend it for.
RESTING = (HostState.READY, HostState.OFF, HostState.FAILED)


class Violation(BaseException):
    """Something happened that must never happen. No code that guards itself against bugs may catch it."""


class WorldClock(SteadyClock):
    """The real clock over the world's time; `ahead` is by how much somebody has set the machine's clock."""

    def __init__(self, baton: Baton, ahead: Callable[[], float]) -> None:
        super().__init__(lambda: EPOCH + baton.now + ahead(), lambda: baton.now)
        self._baton = baton

    def monotonic(self) -> float:
        return self._baton.now

    def sleep(self, seconds: float) -> None:
        self._baton.sleep(seconds)


@dataclass(frozen=True)
class Edition:
    """One version of fleet.yaml; `spec` None: it can't be read."""

    number: int
    spec: FleetSpec | None


class FakeFile:
    """fleet.yaml, as FleetFile."""

    path = Path("/fleet.yaml")

    def __init__(self, world: World) -> None:
        self._world = world
        self._loaded = -1
        self._read: FleetSpec | None = None
        self.problem = ""

    def load(self) -> FleetSpec:
        edition = self._world.edition
        self._loaded = edition.number
        if edition.spec is None:
            raise SpecError([Problem(1, "", "it ends in the middle")], self.path)
        self._read = edition.spec
        return edition.spec

    def changed(self) -> bool:
        return self._loaded != self._world.edition.number

    def accepted(self) -> None:
        self.problem, self._world.kept = "", self._read

    def refused(self, problem: object) -> str:
        self.problem = f"{IN_FORCE} {problem}"
        return self.problem

    @property
    def checksum(self) -> str:
        return f"edition-{self._loaded}"

    def load_or_last_good(self) -> FleetSpec:
        try:
            return self.load()
        except SpecError as error:
            if self._world.kept is None:
                raise
            self.refused(error)
            return self._world.kept


class Process:
    """One life of the controller."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pulse: Pulse | None = None
        self.ended = False

    def main(self) -> None:
        world = self.world
        try:
            touch = world.touch_for(self)
            clock = WorldClock(world.baton, lambda: world.ahead_s)
            self.pulse = Pulse(clock, world.patience)
            self.pulse.within("the start", LOOP_S)
            touch("journal.migrate.before")
            journal: Any = world.journal(touch)
            touch("journal.migrate.after")
            spawn = self._spawn
            file = FakeFile(world)
            spec = file.load_or_last_good()
            keeper = WorldDoorkeeper(spec, world.folder, journal, clock, world.balancer, touch, spawn)
            outside = Outside(
                clock=clock,
                observer=WorldObserver(world),  # type: ignore[arg-type]
                doorkeeper=keeper,
                open_site=lambda wanted: world.site(wanted, touch),
                spawn=spawn,
                pulse=self.pulse,
                bell=lambda: Bell(world.baton),
                poll_s=1.0,
            )
            loop = Loop(file, spec, journal, outside)  # type: ignore[arg-type]
            if not file.problem:
                file.accepted()
            self.pulse.ends("the start")
            loop.run(Bell(world.baton))
        except (SpecError, Refused, JournalError, FailpointReached) as error:
            world.log.add(world.baton.now, "controller", "refuses", why=str(error)[:60])
        finally:
            self.ended = True

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        self.world.baton.spawn(name, work, owner=self)


class _Bugs(logging.Handler):
    """Hears of errors that the controller caught because nothing better can be done with a bug."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, FailpointReached):
            where = traceback.format_exception(error)[-3:]
            self.found.append(f"{record.getMessage()}: {''.join(where)}")


class WorldObserver:
    """Asks the agents over the world's network, as Observer."""

    def __init__(self, world: World) -> None:
        self._world = world

    def look(self, targets: Mapping[str, Target], door: Any, now: float) -> Observation:
        world = self._world
        first = {name: self._answer(target) for name, target in targets.items() if world.dice.random() < 0.5}
        balancer, error = None, None
        try:
            balancer = door.status()
        except FrontDoorError as failure:
            error = str(failure)
        silent = any(report.status is None for report in first.values())
        world.baton.sleep(2.0 if silent else world.dice.uniform(0.01, 0.1))
        reports = {
            name: first[name] if name in first else self._answer(target) for name, target in targets.items()
        }
        return Observation(now, reports, balancer, error)

    def ask(self, target: Target) -> HostReport:
        report = self._answer(target)
        self._world.baton.sleep(0.01 if report.status is not None else 1.0)
        return report

    def _answer(self, target: Target) -> HostReport:
        name, _, port = target.url.removeprefix("http://").partition(":")
        host = self._world.hosts[name]
        agent = host.agent
        if host.http_cut or self._world.balancer.deaf or not host.up:
            return HostReport(None, f"{target.url} does not answer: timed out")
        if agent is None or not agent.alive or agent.hung or agent.port != int(port):
            return HostReport(None, f"{target.url} does not answer: refused")
        self._world.balancer.advance()
        now = self._world.baton.now
        state = agent.state(now)
        status = AgentStatus.model_construct(
            fleet="world",
            host=name,
            action_id=agent.action_id,
            release=agent.release,
            pid=agent.pid,
            started_at=agent.born,
            at=now,
            state=state,
            error="the model can't be loaded" if agent.failed else None,
            models=[ModelStatus.model_construct(name="m", version="1", ready=state == "ready")],
            in_flight=0,
            queued=0,
            completed=agent.completed,
            errors=0,
            busy_s=agent.busy_s,
            latency=EMPTY,
            device="cpu",
            device_memory=DeviceMemory.model_construct(used_bytes=None, total_bytes=None),
        )
        return HostReport(status, None)


class World:
    """`failpoints` maps a point's name to "kill", "raise" or "hang"; each is reached once.

    `power`: every second host can be switched off and on. `patience` is that of the watchdog.
    """

    def __init__(
        self,
        spec: FleetSpec,
        seed: int,
        failpoints: Mapping[str, str] | None = None,
        power: bool | None = None,
        patience: float = 1.0,
    ) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.baton = Baton(self.dice)
        self.log = Log()
        self.store = Store()
        power = self.dice.random() < 0.3 if power is None else power
        self.patience = patience
        self.hosts = {
            h.name: Host(h.name, self.baton, self.dice, self.log, power and i % 2 == 1)
            for i, h in enumerate(spec.hosts)
        }
        self.balancer = Balancer(self.baton, self.dice, self.log, self.hosts)
        self.edition = Edition(1, spec)
        self.kept: FleetSpec | None = None  # the last good one, as the state folder keeps it
        self.good = spec
        self.ahead_s = 0.0
        self.process: Process | None = None
        self.revival = True
        self.failpoints = dict(failpoints or {})
        self.reached: set[str] = set()
        self.violations: list[str] = []
        self.folder: Any = SimpleNamespace(
            token=self._token, has_token=lambda name: name in self._tokens, path=Path("/nowhere")
        )
        self._tokens: set[str] = set()
        self._blind_since: float | None = None
        self._yields = self.dice.choice([0.0, 0.05, 0.3])
        self._stops: list[float] = []
        self._bugs = _Bugs()
        logger = logging.getLogger("fleet_controller")
        logger.addHandler(self._bugs)
        logger.propagate = False

    def _token(self, name: str) -> str:
        self._tokens.add(name)
        return "t"

    # the controller

    def journal(self, touch: Callable[[str], None]) -> MemoryJournal:
        return MemoryJournal(self.store, touch)

    def site(self, spec: FleetSpec, touch: Callable[[str], None]) -> Site:
        machines = SimpleNamespace(
            machine=lambda name: FakeMachine(self.hosts[name], spec.host(name), touch),
            reaching_s=lambda name: 0.0,
            close=lambda: None,
        )
        releases = {p.name: SimpleNamespace(key=f"release-{spec.models[0].version}") for p in spec.pools}
        return Site(spec, machines, releases, self.folder)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Start the controller, and whoever starts it again when it has ended or hung."""
        self.ask("up")
        self._start()
        self.baton.spawn("supervisor", self._supervise)

    def _start(self) -> None:
        self.process = Process(self)
        self.log.add(self.baton.now, "controller", "starts")
        self.baton.spawn("controller", self.process.main, owner=self.process)

    def _supervise(self) -> None:
        while True:
            self.baton.sleep(5.0)
            process = self.process
            if process is None:
                continue
            late = process.pulse.late() if process.pulse is not None else None
            if late is not None:
                self.log.add(self.baton.now, "watchdog", late)
                self.kill()
            if process.ended or late is not None:
                self._start()

    def kill(self) -> None:
        """kill -9 of the controller; the supervisor starts another one."""
        process = self.process
        if process is not None and not process.ended:
            self.log.add(self.baton.now, "controller", "killed")
            process.ended = True
            self.balancer.lost = lambda: None
            self.baton.kill(process)

    def touch_for(self, process: Process) -> Callable[[str], None]:
        """What happens around every effect and commit of this process."""

        def touch(name: str) -> None:
            if name == "read":
                if self._yields and self.dice.random() < self._yields:
                    self.baton.sleep(0.0)
                return
            if self._yields and self.dice.random() < self._yields:
                self.baton.sleep(self.dice.uniform(0.0, 0.02))
            if name == "journal.begin.after":
                self._begun()
            if name == "machine.stop.before":
                self._ends_agent()
            self.reached.add(name)
            how = self.failpoints.pop(name, None)
            if how is not None:
                self.log.add(self.baton.now, "failpoint", name, how=how)
            if how == "kill":
                self.kill()
            elif how == "raise":
                raise FailpointReached(name)
            elif how == "hang":
                self.baton.park()

        return touch

    # operators

    def ask(self, kind: str, **args: Any) -> int:
        self.log.add(self.baton.now, "operator", kind, **args)
        while self.store.full:  # the command line says so, and the operator tries again
            self.baton.sleep(5.0)
        return int(self.command(lambda journal: journal.ask(kind, **args)))

    def command(self, work: Callable[[MemoryJournal], Any]) -> Any:
        """What an operator's command does to the journal; one that dies, fails or hangs is given again."""

        def touch(name: str) -> None:
            self.reached.add(name)
            if self.failpoints.pop(name, None) is not None:
                raise FailpointReached(name)

        try:
            return work(MemoryJournal(self.store, touch))
        except FailpointReached:
            return work(MemoryJournal(self.store, touch))

    def edit(self, spec: FleetSpec | None) -> None:
        self.edition = Edition(self.edition.number + 1, spec)
        if spec is not None:
            self.good = spec

    # running

    def run(self, until: float) -> None:
        while self.baton.now < until and self.baton.step():
            self.check()

    def close(self) -> None:
        self.baton.close()
        logger = logging.getLogger("fleet_controller")
        logger.removeHandler(self._bugs)
        logger.propagate = True

    # what must hold

    def check(self) -> None:
        """I1: each host in one row, and at most one action a host; the rest is checked where it happens."""
        if self._bugs.found:
            self.fail(f"the controller has a bug: {self._bugs.found[0]}")
        actions = [action.host for action in self.store.actions.values()]
        if len(actions) != len(set(actions)):
            self.fail(f"I1: two actions on one host: {actions}")
        if self.store.hosts and set(self.store.hosts) != self._enlisted():
            self.fail(f"I1: rows {sorted(self.store.hosts)}")
        self.blind()

    def _enlisted(self) -> set[str]:
        return set(self.store.hosts) if set(self.store.hosts) <= set(self.hosts) else set(self.hosts)

    def fail(self, text: str) -> None:
        raise Violation(f"SEED={self.seed} at {self.baton.now:.1f} s: {text}")

    def agents_once(self) -> None:
        """I2: no start made its agent twice, unless the first one had ended by itself."""
        for host in self.hosts.values():
            for action, count in host.launches.items():
                if count > 1 + host.excused.get(action, 0):
                    self.fail(f"I2: {host.name} was started {count} times by {action}")

    def blind(self) -> bool:
        """Whether the controller has been unable to see for so long that it must know."""
        cut = [h for h in self.hosts.values() if self.store.hosts.get(h.name) and self._in_use(h.name)]
        asked = (HostState.READY, HostState.DRAINING, HostState.UNREACHABLE)
        lost = [
            h for h in cut if (h.http_cut or self.balancer.deaf) and self.store.hosts[h.name].state in asked
        ]
        blind = len(lost) == len(cut) > 1 or (len(lost) > 3 and len(lost) > 0.45 * len(cut))
        if not blind:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = self.baton.now
        return self._blind_since is not None and self.baton.now - self._blind_since > REACTION_S

    def _in_use(self, name: str) -> bool:
        return self.store.hosts[name].state is not HostState.OFF

    def _begun(self) -> None:
        """I4, I5 and blindness, at the moment at which a stop is decided."""
        action = list(self.store.actions.values())[-1]
        if action.kind != "stop" or self.store.facts.get("goal") == "down":
            return
        asked = self.store.facts.get("operation") or {}
        if asked.get("kind") == "down" and action.host in (asked["bounds"]["hosts"] or ()):
            return
        now = self.baton.now
        self.log.add(now, "controller", "stops", host=action.host, why=action.reason[:50])
        records = self.store.hosts
        going = [r for r in records.values() if r.state in GOING_DOWN]
        ready = [r for r in records.values() if r.state is HostState.READY]
        if len(going) > max(1, (len(going) + len(ready)) // 10):
            self.fail(f"I5: {len(going)} of {len(going) + len(ready)} go at once")
        if self.blind():
            self.fail(f"{action.host} is stopped while nothing is seen: {action.reason}")
        by_operator = records[action.host].cordoned
        in_place = "no host is free" in action.reason
        floor = min(self._floor(), len(ready) + 1)
        if len(ready) < floor and not by_operator and not in_place:
            self.fail(f"I4: {len(ready)} left of {floor} after {action.reason}")

    def _floor(self) -> int:
        return min(self.good.pools[0].scaling.min_servers, self._lowest_floor)

    _lowest_floor = 10**9

    def lowest_floor(self, count: int) -> None:
        """fleet.yaml asked for as few at some time; which version is in force is not for the world to know."""
        self._lowest_floor = min(self._lowest_floor, count)

    def _ends_agent(self) -> None:
        """An inspection ends an agent that hangs: not while nothing is seen."""
        task = self.baton.current()
        host = self.hosts.get(task.name.removeprefix("act-"))
        if host is None or self.store.facts.get("goal") == "down":
            return
        if any(action.host == host.name for action in self.store.actions.values()):
            return
        agent = host.agent
        if agent is not None and agent.serves(self.baton.now) and self.blind():
            self.fail(f"an inspection ends the agent of {host.name}, which serves, while nothing is seen")

    # the end

    def settled(self) -> str:
        """What is not as it should be; "" when desired and actual are one."""
        store = self.store
        pool = store.pools.get("default")
        if store.facts.get("goal") != "up" or pool is None or pool.desired is None:
            return "nothing is wanted yet"
        if store.actions:
            return f"open actions: {[a.host for a in store.actions.values()]}"
        release = f"release-{self.good.models[0].version}"
        ready = {r.name for r in store.hosts.values() if r.state is HostState.READY}
        others = {r.name: str(r.state) for r in store.hosts.values() if r.state not in RESTING}
        if others:
            return f"neither ready nor off: {others}"
        if len(ready) != pool.desired:
            return f"{len(ready)} ready, {pool.desired} wanted"
        now = self.baton.now
        serving = {h.name for h in self.hosts.values() if h.agent is not None and h.agent.serves(now)}
        if serving != ready:
            return f"{sorted(serving)} serve, {sorted(ready)} are taken for ready"
        running = {h.name for h in self.hosts.values() if h.agent is not None and h.agent.alive}
        if running != ready:
            return f"agents run on {sorted(running)}, ready are {sorted(ready)}"
        old = [
            h.name for h in self.hosts.values() if h.name in ready and h.agent and h.agent.release != release
        ]
        if old:
            return f"an old release on {old}"
        listed = {b.name for b in self.balancer.list.backends} if self.balancer.list else set()
        if listed != ready:
            return f"the balancer has {sorted(listed)}, ready are {sorted(ready)}"
        return ""
