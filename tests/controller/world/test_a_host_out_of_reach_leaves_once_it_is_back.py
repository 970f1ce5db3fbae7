"""A host that SSH does not reach can't be stopped, though its agent answers: it is drained meanwhile, and waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fleet_world.fate import with_scaling
from fleet_world.hosts import Host
from fleet_world.world import World

from fleet_controller.lifecycle import HostState
from fleet_controller.spec import FleetSpec


def serving(spec: FleetSpec, count: int) -> tuple[World, Host]:
    """A world whose h01 is ready, and that host."""
    world = World(with_scaling(spec, min_servers=count, max_servers=count), 4, power=False)
    world.lowest_floor(1)
    world.begin()
    until(world, lambda: "h01" in world.store.hosts and world.store.hosts["h01"].state is HostState.READY)
    return world, world.hosts["h01"]


def until(world: World, true: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = world.baton.now + seconds
    while not true():
        assert world.baton.now < deadline, {name: str(r.state) for name, r in world.store.hosts.items()}
        world.run(world.baton.now + 0.5)


@pytest.mark.parametrize("http_cut", [False, True], ids=["its agent answers", "nothing answers"])
def test_drained_it_gets_nothing_new_and_is_stopped_once_it_is_back(
    fleet_of: Callable[[int], FleetSpec], http_cut: bool
) -> None:
    world, host = serving(fleet_of(3), 2)
    host.blackholed, host.http_cut = True, http_cut
    world.ask("drain", host="h01")
    until(world, lambda: world.store.hosts["h01"].state is HostState.UNREACHABLE)
    moves = len([e for e in world.store.events if e.host == "h01"])
    for _ in range(240):
        world.run(world.baton.now + 0.5)
        assert world.store.hosts["h01"].state is HostState.UNREACHABLE, "it is tried in vain, again and again"
        listed = {b.name: b.state for b in world.balancer.list.backends} if world.balancer.list else {}
        assert listed["h01"] == "draining", listed
    assert len([e for e in world.store.events if e.host == "h01"]) == moves
    host.blackholed = host.http_cut = False
    until(world, lambda: world.store.hosts["h01"].state is HostState.OFF)
    world.close()
    assert host.agent is None or not host.agent.alive


def test_one_whose_drain_is_taken_back_serves_again_though_ssh_does_not_reach_it(
    fleet_of: Callable[[int], FleetSpec],
) -> None:
    world, host = serving(fleet_of(3), 2)
    host.blackholed = True
    world.ask("drain", host="h01")
    until(world, lambda: world.store.hosts["h01"].state is HostState.UNREACHABLE)
    world.ask("uncordon", host="h01")
    until(world, lambda: world.store.hosts["h01"].state is HostState.READY)
    world.close()
    assert host.agent is not None and host.agent.alive


def test_when_the_fleet_goes_down_it_is_not_tried_again_and_again(
    fleet_of: Callable[[int], FleetSpec],
) -> None:
    """`down` waits until nothing moves any more."""
    world, host = serving(fleet_of(1), 1)
    host.blackholed = True
    world.ask("down")
    until(world, lambda: world.store.hosts["h01"].state is HostState.UNREACHABLE)
    since = world.store.hosts["h01"].since
    world.run(world.baton.now + 120.0)
    record = world.store.hosts["h01"]
    assert (record.state, record.since) == (HostState.UNREACHABLE, since)
    host.blackholed = False
    until(world, lambda: world.store.hosts["h01"].state is HostState.OFF)
    world.close()
