"""`down` in the whole loop: a host is off once that is proved, by its power control where SSH does not reach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fleet_world.fate import with_scaling
from fleet_world.hosts import Agent, Host
from fleet_world.world import World

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Stopped
from fleet_controller.lifecycle import HostState, Quarantine
from fleet_controller.spec import FleetSpec

FleetOf = Callable[[int], FleetSpec]


def fleet(fleet_of: FleetOf, ready: int) -> tuple[World, Host]:
    """A world of h01, always on, and h02, whose power can be switched; as many are wanted."""
    spec = with_scaling(fleet_of(2), min_servers=ready, max_servers=ready)
    first, second = spec.hosts
    second = second.model_copy(update={"power": second.power.model_copy(update={"driver": "command"})})
    world = World(spec.model_copy(update={"hosts": (first, second)}), 4, power=True)
    world.lowest_floor(1)
    return world, world.hosts["h02"]


def until(world: World, true: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = world.baton.now + seconds
    while not true():
        assert world.baton.now < deadline, {name: str(r.state) for name, r in world.store.hosts.items()}
        world.run(world.baton.now + 0.5)


def state(world: World) -> HostState | None:
    """Of h02; None: the controller has not enlisted it yet."""
    record = world.store.hosts.get("h02")
    return None if record is None else record.state


def test_a_machine_that_serves_and_is_not_reached_is_off_because_its_power_is(fleet_of: FleetOf) -> None:
    world, host = fleet(fleet_of, 2)
    world.begin()
    until(world, lambda: state(world) is HostState.READY)
    host.blackholed = host.http_cut = True
    until(world, lambda: state(world) is HostState.UNREACHABLE)
    assert host.up and host.agent is not None and host.agent.alive
    world.ask("down")
    until(world, lambda: state(world) is HostState.OFF)
    world.close()
    assert not host.up
    [remark] = [e.reason for e in world.store.events if e.kind == "remark" and e.host == "h02"]
    assert "its power control alone ended what ran there" in remark


def test_what_neither_ssh_nor_its_power_control_can_prove_stays_unreachable(fleet_of: FleetOf) -> None:
    world, host = fleet(fleet_of, 2)
    world.begin()
    until(world, lambda: state(world) is HostState.READY)
    host.blackholed = host.http_cut = host.power_silent = True
    until(world, lambda: state(world) is HostState.UNREACHABLE)
    world.ask("down")
    until(world, lambda: "Nor is the machine proved to be off" in (world.store.hosts["h02"].error or ""))
    assert state(world) is HostState.UNREACHABLE
    assert "its BMC does not answer" in (world.store.hosts["h02"].error or "")
    since = world.store.hosts["h02"].since
    # `down` waits for 1.5 intervals without a change before it says so: nothing moves until then
    world.run(world.baton.now + 25.0)
    assert (state(world), world.store.hosts["h02"].since) == (HostState.UNREACHABLE, since)
    host.power_silent = False
    world.ask("down")
    until(world, lambda: state(world) is HostState.OFF)
    world.close()
    assert not host.up


def test_a_machine_that_was_switched_on_and_never_reached_is_switched_off_by_down(fleet_of: FleetOf) -> None:
    world, host = fleet(fleet_of, 2)
    host.blackholed = True
    world.begin()
    until(world, lambda: state(world) is HostState.UNREACHABLE)
    assert host.up and world.store.hosts["h02"].action_id is None
    world.ask("down")
    until(world, lambda: state(world) is HostState.OFF)
    world.close()
    assert not host.up


def test_one_that_comes_into_reach_when_nobody_needs_it_any_more_is_switched_off(fleet_of: FleetOf) -> None:
    world, host = fleet(fleet_of, 2)
    host.blackholed = True
    world.begin()
    until(world, lambda: state(world) is HostState.UNREACHABLE)
    world.edit(with_scaling(world.good, min_servers=1, max_servers=1))
    until(world, lambda: world.store.pools["default"].desired == 1)
    host.blackholed = False
    until(world, lambda: state(world) is HostState.OFF)
    world.close()
    assert not host.up


def test_what_had_to_be_killed_is_told(fleet_of: FleetOf) -> None:
    world, host = fleet(fleet_of, 2)
    stop, names = host.stop, tuple(f"pid {n} (sleep {n})" for n in range(1, 8))
    host.stop = lambda grace_s: replace(stop(grace_s), killed=names)  # type: ignore[method-assign]
    world.begin()
    until(world, lambda: state(world) is HostState.READY)
    world.ask("down")
    until(world, lambda: state(world) is HostState.OFF)
    world.close()
    [remark] = [e.reason for e in world.store.events if e.kind == "remark" and e.host == "h02"]
    assert remark == (
        "h02: SIGKILL ended what did not end by itself: pid 1 (sleep 1); pid 2 (sleep 2); pid 3 (sleep 3); "
        "pid 4 (sleep 4); pid 5 (sleep 5) and 2 more"
    )


def test_an_agent_that_no_start_knows_and_that_does_not_end_is_never_taken_for_off(fleet_of: FleetOf) -> None:
    spec = with_scaling(fleet_of(1), min_servers=1, max_servers=1)
    world = World(spec, 4, power=False)
    world.lowest_floor(1)
    host = world.hosts["h01"]
    host.agent = Agent(99, "of a lost state store", "release-0", 9400, 0.0, 0.0)
    stop = host.stop

    def held(grace_s: float) -> Stopped:
        raise HostFailure("h01", "stop", "process 99 does not end", "See why")

    host.stop = held  # type: ignore[method-assign]
    world.begin()
    until(world, lambda: "h01" in world.store.hosts and world.store.hosts["h01"].state is HostState.FAILED)
    world.ask("down")
    world.run(world.baton.now + 60.0)
    assert host.agent.alive and world.store.hosts["h01"].state is HostState.FAILED
    assert "process 99 does not end" in (world.store.hosts["h01"].error or "")
    assert world.store.hosts["h01"].quarantine is Quarantine.UNPROVEN
    host.stop = stop  # type: ignore[method-assign]
    world.ask("down")
    until(world, lambda: world.store.hosts["h01"].state is HostState.OFF)
    world.close()
    assert host.agent is None and not world.store.hosts["h01"].unproven
