"""Machines switched by commands on another machine: seen to be done, and never done twice."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

FleetOf = Callable[..., FleetSpec]

# A hypervisor whose machines are files; what is done is written down.
CONTROL = """#!/bin/sh
# control VERB NAME
cd "$(dirname "$0")" || exit 9
echo "$1 $2" >> done
case "$1" in
  start) [ -e slow ] && { ( sleep 0.5; echo running > "$2.state" ) >/dev/null 2>&1 & exit 0; }
         [ -e lie ] || echo running > "$2.state" ;;
  shutdown) [ -e lie ] || echo "shut off" > "$2.state" ;;
  domstate) [ -e broken ] && { echo "error: failed to connect to the hypervisor" >&2; exit 1; }
            cat "$2.state" 2>/dev/null || echo "shut off" ;;
esac
[ -e refuse ] && [ "$1" != domstate ] && { echo "error: Domain not found" >&2; exit 1; }
exit 0
"""


class Hypervisor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.control = folder / "control"
        self.control.write_text(CONTROL)
        self.control.chmod(0o755)

    def done(self) -> list[str]:
        """Everything but looking."""
        path = self.folder / "done"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("domstate")]

    def power(self, via: str | None) -> dict[str, Any]:
        control = str(self.control)
        return {
            "driver": "command",
            "on": [control, "start", "{name}"],
            "off": [control, "shutdown", "{name}"],
            "status": [control, "domstate", "{name}"],
            "via": via,
            "boot_timeout": "1500ms",
            "off_timeout": "1s",
        }


@pytest.fixture
def hypervisor(tmp_path: Path) -> Hypervisor:
    return Hypervisor(tmp_path / "hypervisor")


@pytest.fixture(params=["over ssh", "here"])
def vm(request: pytest.FixtureRequest, fleet_of: FleetOf, state: Path, hypervisor: Hypervisor) -> Any:
    entries: list[dict[str, Any]] = []
    if request.param == "over ssh":
        entries = [request.getfixturevalue("host").entry()]
    power = hypervisor.power("h1" if entries else None)
    entries.append({"name": "vm1", "address": "127.9.9.9", "ssh": {"port": 1}, "power": power})
    with Machines(fleet_of(entries), state) as machines:
        yield machines.machine("vm1")


def test_on_and_off_are_verified_and_done_once(vm: Machine, hypervisor: Hypervisor) -> None:
    assert vm.powered() is False
    assert vm.power_on() is True
    assert vm.powered() is True
    assert vm.power_on() is False
    assert vm.power_off() is True
    assert vm.powered() is False
    assert vm.power_off() is False
    assert hypervisor.done() == ["start vm1", "shutdown vm1"]


def test_a_machine_that_takes_its_time_is_waited_for(vm: Machine, hypervisor: Hypervisor) -> None:
    (hypervisor.folder / "slow").touch()
    assert vm.power_on() is True
    assert hypervisor.done() == ["start vm1"]


def test_control_that_says_yes_and_does_nothing(vm: Machine, hypervisor: Hypervisor) -> None:
    (hypervisor.folder / "lie").touch()
    with pytest.raises(HostFailure) as caught:
        vm.power_on()
    assert caught.value.kind == "power"
    assert "after 1.5 s" in caught.value.cause
    assert hypervisor.done() == ["start vm1"], "once, however long it is waited"


def test_control_that_refuses_is_quoted(vm: Machine, hypervisor: Hypervisor) -> None:
    for name in ("refuse", "lie"):
        (hypervisor.folder / name).touch()
    with pytest.raises(HostFailure) as caught:
        vm.power_on()
    assert "Domain not found" in caught.value.cause
    assert hypervisor.done() == ["start vm1"]


def test_not_knowing_is_not_off(vm: Machine, hypervisor: Hypervisor) -> None:
    (hypervisor.folder / "broken").touch()
    for act in (vm.powered, vm.power_on, vm.power_off):
        with pytest.raises(HostFailure) as caught:
            act()
        assert caught.value.kind == "power"
        assert "failed to connect to the hypervisor" in caught.value.cause
    assert hypervisor.done() == []


def test_two_callers_switch_once(vm: Machine, hypervisor: Hypervisor) -> None:
    threads = [threading.Thread(target=vm.power_on) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hypervisor.done() == ["start vm1"]


@pytest.mark.machine
def test_a_hypervisor_that_is_down_is_named(
    host: Host, fleet_of: FleetOf, state: Path, hypervisor: Hypervisor
) -> None:
    entry: dict[str, Any] = host.entry()
    entry["ssh"]["connect_timeout"] = "1s"
    vm = {"name": "vm1", "address": "127.9.9.9", "ssh": {"port": 1}, "power": hypervisor.power("h1")}
    with Machines(fleet_of([entry, vm]), state) as machines:
        host.kill()
        with pytest.raises(HostFailure) as caught:
            machines.machine("vm1").power_on()
    assert caught.value.host == "vm1"
    assert caught.value.jump == "h1"
    assert caught.value.unreachable


def test_without_power_control_a_machine_counts_as_on(host: Host, fleet_of: FleetOf, state: Path) -> None:
    with Machines(fleet_of([host.entry()]), state) as machines:
        machine = machines.machine("h1")
        assert machine.powered() is None
        assert machine.power_on() is False
        with pytest.raises(HostFailure, match="no power control"):
            machine.power_off()


@pytest.mark.skipif(
    shutil.which("virsh") is None, reason="virsh is not installed: apt-get install libvirt-clients"
)
def test_libvirts_test_driver_over_ssh(host: Host, fleet_of: FleetOf, state: Path) -> None:
    """The driver forgets everything when virsh ends: a domain that is always running, whoever switches it off."""
    virsh = [shutil.which("virsh"), "-q", "-c", "test:///default"]
    power = {
        "driver": "command",
        "on": [*virsh, "start", "{name}"],
        "off": [*virsh, "destroy", "{name}"],
        "status": [*virsh, "domstate", "{name}"],
        "via": "h1",
        "off_timeout": "1s",
    }
    entries = [
        host.entry(),
        {"name": "test", "address": "127.9.9.9", "ssh": {"port": 1}, "power": power},
        {"name": "nosuch", "address": "127.9.9.10", "ssh": {"port": 1}, "power": power},
    ]
    with Machines(fleet_of(entries), state) as machines:
        assert machines.machine("test").powered() is True
        assert machines.machine("test").power_on() is False
        with pytest.raises(HostFailure) as caught:
            machines.machine("test").power_off()
        assert "does not say that it is off after 1 s" in caught.value.cause
        with pytest.raises(HostFailure) as caught:
            machines.machine("nosuch").power_on()
        assert "nosuch" in caught.value.cause
