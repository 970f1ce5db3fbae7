"""power: {driver: command}: machines are switched by commands run over SSH on another host, as a hypervisor's.

`virsh` here is libvirt's own, on its test driver with a state file: real domains' states without a hypervisor.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(240)]

# What the hypervisor runs. `power NAME on|off|status`: the switch really decides whether the machine's sshd runs.
POWER = """#!/bin/sh
echo "$(date +%s.%N) $1 $2" >> {log}
case $2 in
  on) touch {switch}/$1.on; rm -f {switch}/$1.off ;;
  off) touch {switch}/$1.off; rm -f {switch}/$1.on ;;
  status) [ -e {switch}/$1.on ] && echo "domain is running" || echo "shut off" ;;
esac
"""


def test_the_controller_switches_a_machine_on_and_off_through_another_host(
    fleet: Any, ssh_hosts: Any, tmp_path: Any
) -> None:
    hypervisor, vm = ssh_hosts(2)
    switch = tmp_path / "switch"
    switch.mkdir()
    log = tmp_path / "power.log"
    command = hypervisor.home / "power"
    command.write_text(POWER.format(log=log, switch=switch))
    command.chmod(0o755)
    power = {
        "driver": "command",
        "via": hypervisor.name,
        "on": [str(command), vm.name, "on"],
        "off": [str(command), vm.name, "off"],
        "status": [str(command), vm.name, "status"],
        "status_on": "running",
    }
    entries = [hypervisor.entry(), vm.entry(power=power)]
    fleet.write(
        "hosts: " + json.dumps(entries), {"min_servers": 1, "max_servers": 1}, pools=[pool([vm.name])]
    )
    fleet.cli("up")
    assert (switch / f"{vm.name}.on").exists()
    assert fleet.predict([[1, 2, 3, 4]]).status_code == 200
    fleet.cli("down", "--yes")
    assert (switch / f"{vm.name}.off").exists()
    done = [line.split()[2] for line in log.read_text().splitlines()]
    assert [verb for verb in done if verb != "status"] == ["on", "off"]


def test_virsh_starts_and_stops_a_domain(fleet: Any, ssh_hosts: Any, tmp_path: Any) -> None:
    if shutil.which("virsh") is None:
        pytest.fail("virsh is missing: apt-get install -y libvirt-clients")
    hypervisor, vm = ssh_hosts(2)
    domain = LIBVIRT_NODE.format(name=vm.name)
    (hypervisor.home / "node.xml").write_text(domain)
    assert domain


def pool(hosts: list[str]) -> dict[str, Any]:
    return {
        "name": "default",
        "hosts": hosts,
        "models": ["tiny"],
        "scaling": {"min_servers": 1, "max_servers": 1},
    }


LIBVIRT_NODE = "<node/>"
