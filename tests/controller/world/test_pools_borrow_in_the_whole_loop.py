"""Two pools that share hosts under the whole controller: what the higher tier borrows is drained, and comes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet_world.world import World

from fleet_controller.lifecycle import HostState
from fleet_controller.spec import FleetSpec, load

TEXT = """\
fleet: world
hosts: [{name: "h[1:8]", address: local, agent: {drain_timeout: 10s, start_timeout: 120s}}]
models:
  - {name: m, version: "1", source: tiny, entrypoint: "model:Tiny"}
  - {name: n, version: "1", source: tiny, entrypoint: "model:Tiny"}
pools:
  - {name: interactive, hosts: ["h[1:6]"], models: [m], scaling: SCALING}
  - {name: batch, hosts: ["h[3:8]"], models: [n], tier: batch, scaling: SCALING}
controller: {interval: 10s, unreachable_after: 30s}
"""
SCALING = "{min_servers: 1, max_servers: 6, cooldown: {scale_up: 10s, scale_down: 60s}}"
LENT = "borrowed {} from batch: interactive needs 4, has {}, no free host is left"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FleetSpec:
    folder: Path = tmp_path_factory.mktemp("shared")
    (folder / "tiny").mkdir()
    (folder / "tiny" / "model.py").write_text("class Tiny: ...\n")
    (folder / "fleet.yaml").write_text(TEXT.replace("SCALING", SCALING))
    return load(folder / "fleet.yaml")


class SharedWorld(World):
    """A world in which no host is ever listed for two pools."""

    def check(self) -> None:
        super().check()
        listed = [b.name for b in self.balancer.list.backends] if self.balancer.list is not None else []
        if len(listed) != len(set(listed)):
            self.fail(f"the balancer has a host twice: {listed}")

    def has(self, pool: str) -> list[str]:
        return [r.name for r in self.store.hosts.values() if r.pool == pool and r.state is HostState.READY]

    def scale(self, **pools: int) -> None:
        for pool, servers in pools.items():
            self.ask("scale", pool=pool, servers=servers)

    def told(self, kind: str) -> list[str]:
        return [e.reason for e in self.store.events if e.kind == kind]


Up = Callable[..., SharedWorld]


@pytest.fixture
def up(spec: FleetSpec) -> Iterator[Up]:
    """up(seed): interactive has one of its six hosts, batch all of its own, of which four are shared."""
    made: list[World] = []

    def make(seed: int = 1) -> SharedWorld:
        world = SharedWorld(spec, seed, power=False)
        made.append(world)
        world.begin()
        world.run(100.0)
        world.scale(batch=6)
        world.run(400.0)
        assert len(world.has("interactive")) == 1 and len(world.has("batch")) == 6
        return world

    yield make
    for world in made:
        world.close()


def test_what_is_borrowed_is_drained_serves_and_goes_back(up: Up) -> None:
    world = up()
    world.scale(interactive=4)
    world.run(800.0)
    assert len(world.has("interactive")) == 4 and len(world.has("batch")) == 4
    lent = sorted(set(world.has("interactive")) - {"h1", "h2"})
    assert [reason for reason in world.told("draining") if "borrowed" in reason] == [
        LENT.format(name, has) for name, has in zip(lent, (2, 3), strict=True)
    ]
    assert sorted(r for r in world.told("ready") if "borrowed" in r) == sorted(
        r for r in world.told("draining") if "borrowed" in r
    )
    for name in lent:
        lines = [line for line in world.log.lines if f"{name}:d" in line or f" {name} stop " in line]
        drained, stopped = (float(line.split()[0]) for line in lines[-2:])
        assert stopped - drained >= 2.0, "what was in flight was not waited for"
    status = world.store.facts["status"]
    pools = {p["name"]: p for p in status["pools"]}
    assert pools["batch"]["elsewhere"] == dict.fromkeys(lent, "interactive")
    assert f"2 of its hosts serve interactive: {', '.join(lent)}" in pools["batch"]["diagnosis"]
    assert LENT.format(lent[0], 2) in pools["interactive"]["diagnosis"]
    assert {h["name"]: h["pool"] for h in status["hosts"] if h["name"] in lent} == dict.fromkeys(
        lent, "interactive"
    )
    assert len(status["hosts"]) == 8

    world.scale(interactive=2)
    world.run(1200.0)
    assert len(world.has("interactive")) == 2 and len(world.has("batch")) == 6
    assert len([r for r in world.told("draining") if r.startswith("gave ")]) == 2
    world.agents_once()


@pytest.mark.parametrize("seed", range(3))
def test_a_controller_killed_while_it_borrows_borrows_no_more_than_it_needs(up: Up, seed: int) -> None:
    world, dice = up(seed), random.Random(seed)
    world.scale(interactive=4)
    while world.baton.now < 480.0:
        world.run(world.baton.now + dice.uniform(0.5, 12.0))
        world.kill()
    world.run(1000.0)
    assert len(world.has("interactive")) == 4 and len(world.has("batch")) == 4
    assert len({r for r in world.told("draining") if "borrowed" in r}) == 2
    world.agents_once()


def test_a_lender_whose_hosts_are_out_of_sight_lends_nothing(up: Up) -> None:
    world = up()
    for name in world.has("batch"):
        world.hosts[name].http_cut = True
    world.run(430.0)
    world.scale(interactive=4)
    world.run(700.0)
    assert len(world.has("interactive")) == 2
    assert not [r for r in world.told("draining") if "borrowed" in r]
