"""power: {driver: command}: machines are switched by commands run over SSH on another host, as on a hypervisor.

The switch is real: a machine that is off has no process at all, its SSH server included.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(240)]

# What the hypervisor offers, like `virsh start NAME`, `virsh destroy NAME`, `virsh domstate NAME`.
VIRT = """#!/bin/sh
echo "$1 $2" >> {folder}/asked
case $1 in
  start) echo on > {folder}/$2.wanted ;;
  destroy) echo off > {folder}/$2.wanted ;;
  domstate) cat {folder}/$2.state ;;
esac
"""


class Hypervisor:
    """Switches lab hosts as its command asks, as long as it lives."""

    def __init__(self, host: Any, guests: list[Any], folder: Path) -> None:
        self._guests = guests
        self._folder = folder
        self._end = threading.Event()
        script = host.home / "virt"
        script.write_text(VIRT.format(folder=folder))
        script.chmod(0o755)
        command = str(script)
        self.power = {
            "driver": "command",
            "via": host.name,
            "on": [command, "start", "{name}"],
            "off": [command, "destroy", "{name}"],
            "status": [command, "domstate", "{name}"],
        }
        for guest in guests:
            guest.kill()
            self._say(guest, "shut off")
        self._thread = threading.Thread(target=self._switch)
        self._thread.start()

    def _switch(self) -> None:
        while not self._end.wait(0.05):
            for guest in self._guests:
                wanted = self._folder / f"{guest.name}.wanted"
                if wanted.exists():
                    on = wanted.read_text().strip() == "on"
                    wanted.unlink()
                    if on:
                        self._say(guest, "running")
                        self._end.wait(1.0)  # booting: on, but SSH does not answer yet
                        guest.start()
                    else:
                        guest.kill()
                        self._say(guest, "shut off")

    def _say(self, guest: Any, state: str) -> None:
        (self._folder / f"{guest.name}.state").write_text(f"{state}\n")

    def asked(self) -> list[str]:
        return [line for line in (self._folder / "asked").read_text().splitlines() if "domstate" not in line]

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def hypervisor(ssh_hosts: Any, tmp_path: Path) -> Iterator[Any]:
    """Makes h1 the hypervisor of h2 and h3."""
    host, *guests = ssh_hosts(3)
    folder = tmp_path / "virt"
    folder.mkdir()
    folder.chmod(0o777)
    made = Hypervisor(host, guests, folder)
    yield made
    made.close()


def test_the_controller_switches_machines_on_and_off_through_another_host(
    hypervisor: Any, fleet: Any, ssh_hosts: Any
) -> None:
    host, first, second = ssh_hosts.hosts
    power = hypervisor.power
    entries = [host.entry(), first.entry(power=power), second.entry(power=power)]
    scaling = {"min_servers": 1, "max_servers": 2}
    pool = {"name": "default", "hosts": ["h2", "h3"], "models": ["tiny"], "scaling": scaling}
    fleet.write("hosts: " + json.dumps(entries), scaling, pools=[pool])

    fleet.cli("up")
    assert hypervisor.asked() == ["start h2"]
    assert fleet.predict([[1, 2, 3, 4]]).status_code == 200
    fleet.cli("scale", "2")
    assert hypervisor.asked() == ["start h2", "start h3"]
    powers = {host["name"]: host["power"] for host in fleet.status()["hosts"]}
    assert all(power["driver"] == "command" and power["boot_s"] >= 1.0 for power in powers.values()), powers
    fleet.cli("scale", "1")
    (stopped,) = [line.split()[1] for line in hypervisor.asked() if line.startswith("destroy")]
    off = first if first.name == stopped else second
    assert off.processes() == []
    fleet.cli("down", "--yes")
    assert sorted(hypervisor.asked()) == ["destroy h2", "destroy h3", "start h2", "start h3"]
    assert first.processes() == second.processes() == []


def test_down_switches_off_a_machine_that_runs_and_does_not_answer(
    hypervisor: Any, fleet: Any, ssh_hosts: Any
) -> None:
    host, guest, _ = ssh_hosts.hosts
    power = hypervisor.power
    entries = [host.entry(), guest.entry(power=power)]
    entries[1]["ssh"] |= {"connect_timeout": "2s", "command_timeout": "5s"}
    scaling = {"min_servers": 1, "max_servers": 1}
    pool = {"name": "default", "hosts": [guest.name], "models": ["tiny"], "scaling": scaling}
    fleet.write("hosts: " + json.dumps(entries), scaling, pools=[pool])
    fleet.cli("up")
    guest.freeze()
    fleet.cli("down", "--yes")
    assert hypervisor.asked() == [f"start {guest.name}", f"destroy {guest.name}"]
    assert guest.processes() == []
    assert {one["name"]: one["state"] for one in fleet.status()["hosts"]}[guest.name] == "off"
