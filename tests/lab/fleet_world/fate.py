"""Fate: what goes wrong in one run, drawn from its seed, and when."""

from __future__ import annotations

from collections.abc import Callable

from fleet_controller.spec import FleetSpec
from fleet_world.hosts import Host
from fleet_world.world import World

TROUBLE_S = 600.0
# After the last fault: quarantine and back-off are ended by an operator's `up`; scaling down takes its cooldowns.
PEACE_S = 2400.0


class Fate:
    """The troubles of one world; `names` are those that may be drawn."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice
        self.baton = world.baton
        self.drawn: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def draw(self, many: int) -> None:
        troubles = {name: getattr(self, name) for name in TROUBLES}
        for _ in range(many):
            name = self.dice.choice(list(TROUBLES))
            self.drawn.append(name)
            self.baton.spawn(name, self._one(name, troubles[name]), after_s=self.dice.uniform(5.0, TROUBLE_S))

    def _one(self, name: str, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            self.world.log.add(self.baton.now, "fate", name)
            work()

        return run

    def peace(self) -> None:
        """All that was broken is whole again."""
        world = self.world
        world.log.add(self.baton.now, "fate", "peace")
        for host in world.hosts.values():
            host.refuses = host.blackholed = host.http_cut = host.starts_fail = False
            host.half = 0.0
            host.power_silent = False
            if host.agent is not None and host.agent.hung:
                host.agent.hung = False
            if not host.power:
                host.comes_up()
        world.balancer.hung = world.balancer.deaf = False
        world.balancer.demand = 1.5
        world.store.full = False
        world.edit(world.good)
        for name, record in world.store.hosts.items():
            if record.cordoned:
                world.ask("uncordon", host=name)
        world.ask("resume")
        world.ask("up")

    # hosts

    def _host(self) -> Host:
        return self.dice.choice(list(self.world.hosts.values()))

    def half_success(self) -> None:
        host = self._host()
        host.half = self.dice.uniform(0.2, 0.9)
        self.baton.sleep(self.dice.uniform(20.0, 300.0))
        host.half = 0.0

    def refuses(self) -> None:
        host = self._host()
        host.refuses = True
        self.baton.sleep(self.dice.uniform(5.0, 200.0))
        host.refuses = False

    def cut_off(self) -> None:
        host = self._host()
        host.blackholed = True
        host.http_cut = self.dice.random() < 0.7
        self.baton.sleep(self.dice.uniform(5.0, 200.0))
        host.blackholed = host.http_cut = False

    def http_silent(self) -> None:
        host = self._host()
        host.http_cut = True
        self.baton.sleep(self.dice.uniform(5.0, 200.0))
        host.http_cut = False

    def reboots(self) -> None:
        host = self._host()
        if host.up:
            host.goes_down()
            self.baton.sleep(self.dice.uniform(1.0, 90.0))
            host.comes_up()

    def power_silent(self) -> None:
        host = self._host()
        host.power_silent = True
        self.baton.sleep(self.dice.uniform(20.0, 400.0))
        host.power_silent = False

    def agent_dies(self) -> None:
        self._host().agent_ends("dies")

    def agent_hangs(self) -> None:
        agent = self._host().agent
        if agent is not None:
            agent.hung = True
            if self.dice.random() < 0.5:
                self.baton.sleep(self.dice.uniform(1.0, 60.0))
                agent.hung = False

    def agent_fails(self) -> None:
        agent = self._host().agent
        if agent is not None:
            agent.failed = True

    def starts_fail(self) -> None:
        host = self._host()
        host.starts_fail = True
        host.agent_ends("dies")
        self.baton.sleep(self.dice.uniform(20.0, 400.0))
        host.starts_fail = False

    def mass_loss(self) -> None:
        hosts = list(self.world.hosts.values())
        lost = self.dice.sample(hosts, (len(hosts) + 1) // 2)
        ssh = self.dice.random() < 0.7
        for host in lost:
            host.http_cut = True
            host.blackholed = ssh
        self.baton.sleep(self.dice.uniform(30.0, 300.0))
        for host in lost:
            host.http_cut = host.blackholed = False

    def blackout(self) -> None:
        self.world.balancer.deaf = True
        self.baton.sleep(600.0 if self.dice.random() < 0.5 else self.dice.uniform(10.0, 300.0))
        self.world.balancer.deaf = False

    # balancer, controller, state, clock

    def balancer_dies(self) -> None:
        self.world.balancer.dies()

    def balancer_hangs(self) -> None:
        self.world.balancer.hung = True
        self.baton.sleep(self.dice.uniform(1.0, 60.0))
        self.world.balancer.hung = False

    def balancer_forgets(self) -> None:
        self.world.balancer.dies()
        self.world.balancer.list = None

    def killed(self) -> None:
        self.world.kill()

    def killed_often(self) -> None:
        for _ in range(self.dice.randint(2, 10)):
            self.world.kill()
            self.baton.sleep(self.dice.uniform(0.5, 15.0))

    def disk_full(self) -> None:
        self.world.store.full = True
        self.baton.sleep(self.dice.uniform(1.0, 120.0))
        self.world.store.full = False

    def clock_set(self) -> None:
        self.world.ahead_s += self.dice.choice([-3600.0, 3600.0, -30.0, 30.0])

    # traffic and operators

    def flapping(self) -> None:
        for _ in range(8):
            self.world.balancer.demand = self.dice.choice([0.0, 0.3, 2.0, 6.0])
            self.baton.sleep(30.0)

    def half_a_file(self) -> None:
        self.world.edit(None)
        self.baton.sleep(self.dice.uniform(1.0, 60.0))
        self.world.edit(self.world.good)

    def new_release(self) -> None:
        spec = self.world.good
        version = str(int(spec.models[0].version) + 1)
        self.world.edit(
            spec.model_copy(update={"models": (spec.models[0].model_copy(update={"version": version}),)})
        )

    def new_bounds(self) -> None:
        spec = self.world.good
        low = self.dice.randint(1, max(1, len(spec.hosts) // 2))
        self.world.lowest_floor(low)
        self.world.edit(with_scaling(spec, min_servers=low))

    def scale(self) -> None:
        bounds = self.world.good.pools[0].scaling
        self.world.ask(
            "scale", pool="default", servers=self.dice.randint(bounds.min_servers, bounds.max_servers)
        )

    def drain(self) -> None:
        name = self._host().name
        self.world.ask("drain", host=name)
        self.baton.sleep(self.dice.uniform(5.0, 200.0))
        self.world.ask("uncordon", host=name)

    def down_and_up(self) -> None:
        self.world.ask("down")
        self.baton.sleep(self.dice.uniform(1.0, 120.0))
        self.world.ask("up")

    def paused(self) -> None:
        self.world.ask("pause")
        self.baton.sleep(self.dice.uniform(5.0, 100.0))
        self.world.ask("resume")


TROUBLES = tuple(
    name
    for name, value in vars(Fate).items()
    if callable(value) and not name.startswith("_") and name not in ("draw", "peace")
)


def with_scaling(spec: FleetSpec, **changes: object) -> FleetSpec:
    pool = spec.pools[0]
    scaling = pool.scaling.model_copy(update=changes)
    return spec.model_copy(update={"pools": (pool.model_copy(update={"scaling": scaling}),)})


def live(world: World, troubles: int | None = None) -> Fate:
    """The whole life of a world: troubles, then peace, then it must settle. Raises Violation."""
    fate = Fate(world)
    world.lowest_floor(world.good.pools[0].scaling.min_servers)
    world.begin()
    fate.draw(world.dice.randint(1, 12) if troubles is None else troubles)
    world.run(TROUBLE_S + world.dice.uniform(0.0, 120.0))
    settle(world, fate)
    return fate


def settle(world: World, fate: Fate, patience_s: float = PEACE_S) -> None:
    """Peace, and then desired and actual must become one and stay so for a minute."""
    # what was drawn late may still be under way
    began = world.baton.now
    fate.peace()
    calm_since: float | None = None
    again = began + 300.0
    while True:
        world.run(world.baton.now + 5.0)
        if world.baton.now > again:
            fate.peace()
            again += 700.0
        wrong = world.settled()
        calm_since = None if wrong else calm_since if calm_since is not None else world.baton.now
        if calm_since is not None and world.baton.now - calm_since > 60.0:
            break
        if world.baton.now - began > patience_s:
            world.fail(f"I8: not settled after {patience_s:.0f} s: {wrong}; it had {fate.drawn}")
    world.agents_once()
