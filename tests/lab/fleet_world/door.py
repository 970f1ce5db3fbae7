"""The balancer of the world: a process that is started, dies, hangs and forgets, and counts a simple traffic."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

from fleet_controller.door.admin import FrontDoorError
from fleet_controller.door.keeper import Doorkeeper
from fleet_controller.journal import Journal
from fleet_wire.balancer import BackendList, BackendStatus, BalancerStatus, PoolStatus
from fleet_wire.histogram import LatencyHistogram
from fleet_world.baton import Baton, Mutex
from fleet_world.hosts import Host
from fleet_world.log import Log

RPS_PER_SERVER = 50.0


class Balancer:
    """`demand` is the traffic in servers' worth."""

    def __init__(self, baton: Baton, dice: random.Random, log: Log, hosts: dict[str, Host]) -> None:
        self.baton = baton
        self.dice = dice
        self.log = log
        self.hosts = hosts
        self.alive = False
        self.hung = False
        self.deaf = False  # the controller does not get through to it
        self.pid = 1
        self.started_at = 0.0
        self.list: BackendList | None = None
        self.demand = 1.0
        self.draining_since: dict[str, float] = {}
        self.lost: Callable[[], None] = lambda: None
        self.configured: object = None
        self._fed = 0.0
        self._arrivals = self._completed = self._carry = 0.0
        self._latency = LatencyHistogram()

    def starts(self) -> None:
        self.alive, self.hung = True, False  # its list comes from its state file
        self.pid += 1
        self.started_at = self._fed = self.baton.now
        self._arrivals = self._completed = 0.0
        self._latency = LatencyHistogram()
        self.log.add(self.baton.now, "balancer", "starts")

    def dies(self) -> None:
        if self.alive:
            self.alive = False
            self.log.add(self.baton.now, "balancer", "dies")
            self.lost()

    def takes(self, backends: BackendList) -> None:
        self.list = backends
        listed = {b.name for b in backends.backends if b.state == "draining"}
        self.draining_since = {name: self.draining_since.get(name, self.baton.now) for name in sorted(listed)}
        said = [f"{b.name}:{b.state[0]}" for b in backends.backends]
        self.log.add(self.baton.now, "balancer", "told", hosts=",".join(said))

    def serving(self) -> list[Host]:
        """Hosts that get requests and answer them."""
        if self.list is None:
            return []
        now = self.baton.now
        listed = [self.hosts[b.name] for b in self.list.backends if b.state == "active"]
        return [h for h in listed if h.up and h.agent is not None and h.agent.serves(now)]

    def status(self) -> BalancerStatus:
        now = self.baton.now
        self.advance()
        serving = {h.name for h in self.serving()}
        backends = [
            BackendStatus.model_construct(
                name=b.name,
                pool=b.pool,
                address=b.address,
                state=b.state,
                healthy=b.name in serving,
                in_flight=0 if now - self.draining_since.get(b.name, 0.0) > 2.0 or b.state == "active" else 1,
                requests=0,
                errors=0,
            )
            for b in (self.list.backends if self.list is not None else [])
        ]
        pools = [
            PoolStatus.model_construct(
                name=p.name,
                arrivals=int(self._arrivals),
                completed=int(self._completed),
                errors=0,
                refused=0,
                abandoned=0,
                in_flight=0,
                queued=0 if serving else int(self.demand * 10),
                latency=self._latency.to_wire(),
            )
            for p in (self.list.pools if self.list is not None else [])
        ]
        return BalancerStatus.model_construct(
            pid=self.pid,
            started_at=self.started_at,
            at=now,
            endpoint="http://world",
            pools=pools,
            backends=backends,
            workers=1,
            figures=[],
        )

    def advance(self) -> None:
        """Let the traffic of the time that passed have happened."""
        now = self.baton.now
        seconds, self._fed = now - self._fed, now
        if seconds <= 0.0:
            return
        serving = self.serving()
        share = min(1.0, self.demand / len(serving)) if serving else 0.0
        self._arrivals += self.demand * RPS_PER_SERVER * seconds
        self._completed += share * len(serving) * RPS_PER_SERVER * seconds
        for host in serving:
            assert host.agent is not None
            host.agent.busy_s += share * seconds
            host.agent.completed += int(share * RPS_PER_SERVER * seconds)
        if serving:
            self._latency.record(20.0 / max(0.05, 1.0 - share))


class FakeDoor:
    """The controller's side of it, as FrontDoor."""

    def __init__(self, balancer: Balancer, touch: Callable[[str], None]) -> None:
        self._balancer = balancer
        self._touch = touch

    address = "127.0.0.1:8081"

    def status(self) -> BalancerStatus:
        self._reach()
        return self._balancer.status()

    def put(self, backends: BackendList) -> None:
        self._touch("door.put.before")
        self._reach()
        self._balancer.takes(backends)
        self._touch("door.put.after")

    def _reach(self) -> None:
        baton = self._balancer.baton
        baton.sleep(self._balancer.dice.uniform(0.001, 0.01))
        if not self._balancer.alive:
            raise FrontDoorError("the balancer does not answer: refused")
        if self._balancer.hung or self._balancer.deaf:
            baton.sleep(3.0)
            raise FrontDoorError("the balancer does not answer: timed out")


class FakeDaemon:
    """The balancer's process, as Daemon."""

    name = "balancer"

    def __init__(self, balancer: Balancer, touch: Callable[[str], None]) -> None:
        self._balancer = balancer
        self._touch = touch

    def find(self) -> object | None:
        return self._balancer if self._balancer.alive else None

    def ready(self) -> dict[str, object]:
        return {"listen": "127.0.0.1:8080", "admin": "127.0.0.1:8081", "pid": self._balancer.pid}

    def ensure(self, timeout_s: float = 30.0) -> bool:
        if self._balancer.alive:
            return False
        self._touch("daemon.start.before")
        self._balancer.baton.sleep(0.2)
        started = not self._balancer.alive  # who came first?
        if started:
            self._balancer.starts()
        self._touch("daemon.start.after")
        return started

    def signal(self, number: int) -> bool:
        self._touch("daemon.signal.before")
        self._balancer.baton.sleep(0.01)
        self._touch("daemon.signal.after")
        return True

    def stop(self, timeout_s: float = 30.0) -> bool:
        was = self._balancer.alive
        self._touch("daemon.stop.before")
        self._balancer.baton.sleep(timeout_s if self._balancer.hung else 0.1)
        self._balancer.dies()
        self._touch("daemon.stop.after")
        return was


class WorldDoorkeeper(Doorkeeper):
    """The real one, with the world's balancer in place of a process."""

    def __init__(
        self,
        spec: Any,
        folder: Any,
        journal: Journal,
        clock: Any,
        balancer: Balancer,
        touch: Callable[[str], None],
        spawn: Callable[[str, Callable[[], None]], None],
    ) -> None:
        super().__init__(spec, folder, journal, clock)
        self._balancer = balancer
        self._spawn_beside = spawn
        self._daemon = FakeDaemon(balancer, touch)  # type: ignore[assignment]
        self.door = FakeDoor(balancer, touch)  # type: ignore[assignment]
        self._starting = Mutex(balancer.baton)  # type: ignore[assignment]

    def adopt(self, spec: Any) -> None:
        self._spec = spec

    def _configure(self, now: float) -> None:
        if self._spec is not self._balancer.configured:
            self._balancer.configured = self._spec
            self._daemon.signal(signal.SIGHUP)

    def watch(self, lost: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                lost()
            except Exception:  # as DoorWatch: the next tick looks after the balancer too
                pass

        self._balancer.lost = lambda: self._spawn_beside("door-watch", guarded)
        return lambda: None
