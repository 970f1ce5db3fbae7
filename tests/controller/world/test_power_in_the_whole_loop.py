"""Machines that are switched, under the whole loop: circuits, silent controls, drift, and what a boot teaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleet_world.fate import with_scaling
from fleet_world.world import World

from fleet_controller.lifecycle import HostState
from fleet_controller.spec import FleetSpec

FleetOf = Callable[[int], FleetSpec]


def switched(spec: FleetSpec, **power: Any) -> FleetSpec:
    """All hosts with power control, but for h01, which is always on."""
    hosts = [
        host.model_copy(update={"power": host.power.model_copy(update={"driver": "command", **power})})
        for host in spec.hosts
    ]
    return spec.model_copy(update={"hosts": (spec.hosts[0], *hosts[1:])})


def shown(world: World, host: str) -> dict[str, Any]:
    [found] = [one for one in world.store.facts["status"]["hosts"] if one["name"] == host]
    return dict(found)


def until(world: World, true: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = world.baton.now + seconds
    while not true():
        assert world.baton.now < deadline, {name: str(r.state) for name, r in world.store.hosts.items()}
        world.run(world.baton.now + 0.5)


def state(world: World, host: str) -> HostState:
    return world.store.hosts[host].state


def running(world: World, ready: int) -> World:
    world.lowest_floor(1)
    world.begin()
    until(world, lambda: sum(r.state is HostState.READY for r in world.store.hosts.values()) >= ready)
    return world


def test_no_more_machines_of_a_rack_start_at_once_than_it_bears(fleet_of: FleetOf) -> None:
    spec = with_scaling(switched(fleet_of(8), group="rack-1", boots_at_once=2), min_servers=8)
    world = World(spec, 5, power=True)
    world.lowest_floor(1)
    world.begin()
    most, waited = 0, set()
    while sum(r.state is HostState.READY for r in world.store.hosts.values()) < 8:
        assert world.baton.now < 900.0
        world.run(world.baton.now + 0.5)
        booting = [n for n, r in world.store.hosts.items() if r.state is HostState.BOOTING and n != "h01"]
        most = max(most, len(booting))
        picture = world.store.facts.get("status", {"hosts": []})
        waited |= {h["name"] for h in picture["hosts"] if "waits to be switched on" in h["reason"]}
    world.close()
    assert most == 2
    assert len(waited) >= 4, "and who waits says why"


def test_an_agent_is_ended_also_where_the_power_control_is_silent_and_the_machine_goes_off_later(
    fleet_of: FleetOf,
) -> None:
    world = running(World(with_scaling(switched(fleet_of(2)), min_servers=2), 4, power=True), 2)
    host = world.hosts["h02"]
    host.power_silent = True
    world.ask("drain", host="h02")
    until(world, lambda: state(world, "h02") is HostState.FAILED)
    assert host.agent is None and host.up
    assert "its agent is stopped, but the machine is not proved to be off" in shown(world, "h02")["error"]
    host.power_silent = False
    until(world, lambda: state(world, "h02") is HostState.OFF)
    assert not host.up
    world.close()


def test_a_machine_that_answers_is_started_whatever_its_power_control_says(fleet_of: FleetOf) -> None:
    world = World(with_scaling(switched(fleet_of(2)), min_servers=2), 4, power=True)
    host = world.hosts["h02"]
    host.comes_up()
    host.power_silent = True
    running(world, 2)
    assert world.store.hosts["h02"].boot_s is None
    world.close()


def test_a_boot_is_learned_and_a_start_that_needed_none_reckons_with_it(fleet_of: FleetOf) -> None:
    world = running(World(with_scaling(switched(fleet_of(2)), min_servers=2), 4, power=True), 2)
    first = world.store.hosts["h02"]
    assert first.boot_s is not None and 5.0 <= first.boot_s <= 45.0
    assert first.startup_s is not None and first.startup_s > first.boot_s
    world.hosts["h02"].agent_ends("dies")
    until(world, lambda: state(world, "h02") is not HostState.READY)
    until(world, lambda: state(world, "h02") is HostState.READY)
    again = world.store.hosts["h02"]
    assert again.boot_s == first.boot_s
    assert again.startup_s is not None and again.startup_s > first.boot_s
    assert world.store.hosts["h01"].boot_s is None
    world.close()


def test_a_machine_that_somebody_switched_on_is_shown_and_left_alone(fleet_of: FleetOf) -> None:
    world = running(World(with_scaling(switched(fleet_of(2)), max_servers=1), 4, power=True), 1)
    host = world.hosts["h02"]
    until(world, lambda: shown(world, "h02")["power"]["state"] == "off")
    assert shown(world, "h02")["power"]["drift"] is None
    assert shown(world, "h01")["power"] is None
    host.comes_up()
    until(world, lambda: shown(world, "h02")["power"]["drift"] is not None)
    assert shown(world, "h02")["error"] == "off by plan, but its power control says that it is on"
    assert host.up and state(world, "h02") is HostState.OFF
    host.goes_down()
    until(world, lambda: shown(world, "h02")["power"]["drift"] is None)
    world.run(world.baton.now + 30.0)
    told = [e.reason for e in world.store.events if e.kind == "power_drift" and e.host == "h02"]
    assert told == ["off by plan, but its power control says that it is on", "plan and power control agree"]
    host.power_silent = True
    until(world, lambda: shown(world, "h02")["power"]["state"] == "unknown")
    assert shown(world, "h02")["power"]["reason"] == "its BMC does not answer"
    world.close()
