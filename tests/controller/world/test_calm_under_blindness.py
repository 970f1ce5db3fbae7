"""What a controller that sees nothing, or too much at once, does not do; and how soon it mends what it does see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fleet_world.fate import with_scaling
from fleet_world.journal import MemoryJournal, Store
from fleet_world.world import World

from fleet_controller.lifecycle import HostState
from fleet_controller.spec import FleetSpec

FleetOf = Callable[[int], FleetSpec]
Up = Callable[..., World]


@pytest.fixture
def up(fleet_of: FleetOf) -> Iterator[Up]:
    """up(hosts=10, demand=4.0): a world of which 300 s have passed in peace."""
    made: list[World] = []

    def make(hosts: int = 10, demand: float = 4.0, floor: int = 1, seed: int = 1) -> World:
        world = World(with_scaling(fleet_of(hosts), min_servers=floor), seed, power=False)
        made.append(world)
        world.lowest_floor(floor)
        world.balancer.demand = demand
        world.begin()
        world.run(300.0)
        assert world.settled() == ""
        return world

    yield make
    for world in made:
        world.close()


def serving(world: World) -> int:
    return len(world.balancer.serving())


def acts(world: World, since: float) -> list[str]:
    """Starts and stops since then, as the hosts tell them."""
    told = [line for line in world.log.lines if " launch " in line or " stop " in line or " stops " in line]
    return [line for line in told if float(line.split()[0]) >= since]


def events(world: World, kind: str) -> list[str]:
    return [event.reason for event in world.store.events if event.kind == kind]


def test_ten_minutes_without_any_news_stop_nothing(up: Up) -> None:
    world = up()
    before = serving(world)
    world.balancer.demand = 0.5  # with news it would scale down
    world.balancer.deaf = True
    began = world.baton.now
    world.run(began + 600.0)
    assert acts(world, began) == []
    assert serving(world) == before
    [told] = events(world, "blackout")
    assert told == "nothing is heard of its traffic, so nothing is scaled down until it is"
    world.balancer.deaf = False
    world.run(world.baton.now + 600.0)
    assert world.settled() == ""
    assert serving(world) < before  # and now it does
    assert events(world, "blackout")[-1] == "its traffic is known again"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_by_an_hour_causes_nothing_and_is_told(up: Up, hours: int) -> None:
    world = up()
    began = world.baton.now
    world.ahead_s = hours * 3600.0
    world.run(began + 900.0)
    assert acts(world, began) == []
    [told] = events(world, "clock")
    assert told.startswith(f"this machine's clock was set and is {'ahead of' if hours > 0 else 'behind'}")


@pytest.mark.parametrize("ssh", [True, False])
def test_half_of_ten_hosts_lost_at_once_terminates_nothing(up: Up, ssh: bool) -> None:
    world = up(demand=7.0)
    assert serving(world) == 10
    lost = list(world.hosts.values())[:5]
    for host in lost:
        host.http_cut, host.blackholed = True, ssh
    began = world.baton.now
    world.balancer.demand = 0.2
    world.run(began + 600.0)
    assert acts(world, began) == []
    assert "5 of 10 hosts are out of sight" in events(world, "mass_loss")[0]
    assert serving(world) == 10  # whom the balancer reaches goes on serving
    for host in lost:
        host.http_cut = host.blackholed = False
    world.run(world.baton.now + 1200.0)
    assert world.settled() == ""
    assert events(world, "mass_loss")[-1] == "enough hosts are in sight again"


def test_half_of_the_agents_hanging_at_once_are_not_ended_and_a_single_one_is(up: Up) -> None:
    world = up(demand=7.0)
    agents = [host.agent for host in world.hosts.values()]
    for agent in agents[:5]:
        assert agent is not None
        agent.hung = True
    world.run(world.baton.now + 300.0)
    assert sum(host.killed_by_us for host in world.hosts.values()) == 0
    for agent in agents[1:5]:
        assert agent is not None
        agent.hung = False
    world.run(world.baton.now + 200.0)
    assert [host.killed_by_us for host in world.hosts.values()][:2] == [1, 0]
    assert world.settled() == ""


def test_half_a_fleet_yaml_changes_nothing_and_is_told(up: Up) -> None:
    world = up()
    began = world.baton.now
    world.edit(None)
    world.run(began + 120.0)
    assert acts(world, began) == []
    assert events(world, "config")[-1].startswith("the last good fleet.yaml stays in force:")


def test_a_third_of_the_hosts_does_not_leave_fleet_yaml_without_a_word(up: Up, fleet_of: FleetOf) -> None:
    world = up(demand=1.0)
    smaller = fleet_of(10)
    ready = [name for name, record in world.store.hosts.items() if record.state is HostState.READY]
    kept = sorted([*ready, *[n for n in world.hosts if n not in ready][: 6 - len(ready)]])
    hosts = tuple(host for host in smaller.hosts if host.name in kept)
    pool = smaller.pools[0].model_copy(update={"hosts": tuple(kept)})
    world.edit(smaller.model_copy(update={"hosts": hosts, "pools": (pool,)}))
    world.run(world.baton.now + 60.0)
    assert len(world.store.hosts) == 10
    assert "has lost 4 of its hosts at once" in events(world, "config")[-1]
    assert "fleetctl up --allow-mass-removal" in events(world, "config")[-1]
    world.command(lambda journal: journal.allow_removal(kept))
    world.ask("up")
    world.run(world.baton.now + 60.0)
    assert sorted(world.store.hosts) == kept


def test_where_the_state_lies_can_not_change_while_the_fleet_runs(up: Up) -> None:
    world = up()
    controller = world.good.controller.model_copy(update={"state": "sqlite:///elsewhere.db"})
    world.edit(world.good.model_copy(update={"controller": controller}))
    world.run(world.baton.now + 30.0)
    assert "controller.state can't change while the fleet runs" in events(world, "config")[-1]


def test_a_failed_host_is_replaced_by_another(up: Up) -> None:
    world = up(demand=2.0)
    victim = next(h for h in world.hosts.values() if h.agent is not None)
    victim.starts_fail = True
    victim.agent_ends("dies")
    world.run(world.baton.now + 120.0)
    assert serving(world) == world.store.pools["default"].desired >= 1
    assert victim not in world.balancer.serving()
    assert world.store.hosts[victim.name].state is HostState.FAILED


def test_a_host_that_only_fails_is_left_alone_after_five_starts_and_says_so(up: Up) -> None:
    world = up(hosts=1, demand=0.5)
    host = world.hosts["h01"]
    began, before = world.baton.now, sum(host.launches.values())
    host.starts_fail = True
    host.agent_ends("dies")
    world.run(began + 3600.0)
    assert 3 <= sum(host.launches.values()) - before <= 5
    record = world.store.hosts["h01"]
    assert "quarantined for 60 min after 5 failures in a row" in str(record.error)
    picture = (world.store.facts["status"] or {})["hosts"][0]
    assert picture["quarantined"] is True
    host.starts_fail = False
    world.ask("uncordon", host="h01")
    world.run(world.baton.now + 120.0)
    assert world.settled() == ""


def test_an_operator_is_answered_at_once_while_a_host_hangs(up: Up) -> None:
    world = up(demand=7.0)
    agent = world.hosts["h03"].agent
    assert agent is not None
    agent.hung = True
    slowest = 0.0
    for n in range(30):
        key = world.ask("scale", pool="default", servers=5 + n % 5)
        began = world.baton.now
        while not (answer := MemoryJournal(world.store).answer(key)) or not answer.done:
            world.run(world.baton.now + 0.1)
        slowest = max(slowest, world.baton.now - began)
        world.run(world.baton.now + 0.7)
    assert slowest < 1.5  # the world's loop looks for requests once a second


def test_a_switched_off_machine_is_known_to_be_off_and_not_lost(fleet_of: FleetOf) -> None:
    world = World(fleet_of(2), 4, power=True)
    world.lowest_floor(1)
    world.balancer.demand = 3.0
    world.begin()
    world.run(200.0)
    assert world.store.hosts["h02"].state is HostState.READY
    world.balancer.demand = 0.3
    world.hosts["h02"].goes_down()
    world.run(260.0)
    assert world.store.hosts["h02"].state is not HostState.UNREACHABLE
    world.close()


def test_a_lost_journal_is_made_again_from_the_hosts_without_a_start_or_a_stop(up: Up) -> None:
    world = up(demand=2.0)
    began, running = world.baton.now, {h.name: h.agent for h in world.hosts.values() if h.agent is not None}
    world.kill()
    world.store = Store()
    world.ask("up")
    world.run(began + 200.0)
    assert acts(world, began) == []
    assert {h.name: h.agent for h in world.hosts.values() if h.agent is not None} == running
    ready = {r.name for r in world.store.hosts.values() if r.state is HostState.READY}
    assert ready == set(running)
