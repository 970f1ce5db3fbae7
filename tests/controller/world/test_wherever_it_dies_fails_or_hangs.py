"""Killed, failing or hung once before and after every effect and every commit, the fleet comes out right.

The hosts' own logs are the witness. The same with real processes is in ../loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from fleet_world.fate import Fate, settle, with_scaling
from fleet_world.points import points, unguarded
from fleet_world.world import World

from fleet_controller.journal import KeyExists
from fleet_controller.records import KeyRecord
from fleet_controller.spec import FleetSpec

FleetOf = Callable[[int], FleetSpec]


def test_every_effect_and_every_commit_has_a_point_before_and_one_after_it() -> None:
    assert unguarded() == []
    assert len(points()) == len(set(points())) >= 40


def days_work(world: World) -> None:
    """A life in which every effect and every commit happens."""
    spec = world.good
    fate = Fate(world)
    world.lowest_floor(1)
    world.begin()
    world.run(60.0)
    world.baton.spawn("operator", lambda: operate(world, spec))
    world.run(300.0)
    settle(world, fate)


def operate(world: World, spec: FleetSpec) -> None:
    world.ask("scale", pool="default", servers=3)
    try:
        world.command(lambda journal: journal.add_key(KeyRecord("key", "0" * 64, 1.0)))
    except KeyExists:  # its command was cut off after the commit, and given again
        pass
    world.command(lambda journal: journal.revoke_key("nobody", 2.0))
    world.command(lambda journal: journal.allow_removal(world.hosts))
    world.command(lambda journal: journal.take_lock({"id": "x"}, lambda holder: holder["id"] == "x"))
    world.command(lambda journal: journal.beat_lock("x", 3.0))
    world.command(lambda journal: journal.leave_lock("x"))
    world.command(lambda journal: journal.set_goal("up"))
    request = world.ask("pause")
    world.command(lambda journal: journal.withdraw(request))
    world.balancer.dies()
    world.baton.sleep(50.0)
    world.edit(with_scaling(spec, max_servers=2))
    world.hosts["h01"].agent_ends("dies")
    world.balancer.hung = True
    world.baton.sleep(70.0)
    world.balancer.hung = False
    world.ask("down")
    world.baton.sleep(40.0)
    world.ask("up")


@pytest.mark.parametrize("how", [pytest.param("kill", marks=pytest.mark.slow), "raise", "hang"])
def test_it_converges_and_starts_and_stops_nothing_twice(fleet_of: FleetOf, how: str) -> None:
    for point in points():
        world = World(fleet_of(3), 3, {point: how}, power=True, patience=0.25)
        try:
            days_work(world)
            assert point in world.reached
            assert not world.failpoints, f"{point} was not reached"
            world.agents_once()
            stops = Counter(line.split("action=")[1] for line in world.log.lines if " stop action=" in line)
            assert all(count == 1 for count in stops.values()), (point, stops)
        finally:
            world.close()
