"""Through one machine to the next: hosts of the inventory and [user@]host[:port], chains, circles, faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.ssh import keys
from fleet_controller.spec import FleetSpec

pytestmark = pytest.mark.machine

FleetOf = Callable[..., FleetSpec]


def behind(host: Host, jump: str | None) -> dict[str, Any]:
    made: dict[str, Any] = host.entry()
    made["ssh"]["jump"] = jump
    return made


def sources(host: Host) -> int:
    return host.log().count("Accepted publickey")


def test_a_chain_of_two_from_the_inventory(ssh_hosts: Lab, fleet_of: FleetOf, state: Path) -> None:
    a, b, c = ssh_hosts(3)
    spec = fleet_of([behind(a, None), behind(b, "h1"), behind(c, "h2")])
    with Machines(spec, state) as machines:
        assert machines.machine("h3").probe().boot_id
        assert machines.machine("h2").probe().boot_id
        assert machines.machine("h1").probe().boot_id
    # The connections of the way are the hosts' own, shared.
    assert [sources(host) for host in (a, b, c)] == [1, 1, 1]


def test_a_jump_host_that_is_not_in_the_inventory(ssh_hosts: Lab, fleet_of: FleetOf, state: Path) -> None:
    a, b = ssh_hosts(2)
    spec = fleet_of([behind(b, f"{a.user}@{a.address}:{a.port}")])
    with Machines(spec, state) as machines:
        assert machines.machine("h2").probe().boot_id
    assert sources(a) == sources(b) == 1


def test_a_jump_host_that_is_down_is_named_once_for_all_behind_it(
    ssh_hosts: Lab, fleet_of: FleetOf, state: Path
) -> None:
    a, b, c = ssh_hosts(3)
    a.kill()
    down = behind(a, None)
    down["ssh"]["connect_timeout"] = "2s"
    spec = fleet_of([down, behind(b, "h1"), behind(c, "h2")])
    with Machines(spec, state) as machines:
        for name in ("h2", "h3"):
            with pytest.raises(HostFailure) as caught:
                machines.machine(name).probe()
            assert caught.value.host == name
            assert caught.value.kind == "jump"
            assert caught.value.jump == "h1"
            assert caught.value.unreachable


def test_a_host_behind_a_jump_host_that_is_down_itself(
    ssh_hosts: Lab, fleet_of: FleetOf, state: Path
) -> None:
    a, b = ssh_hosts(2)
    b.kill()
    made = behind(b, "h1")
    made["ssh"]["connect_timeout"] = "2s"
    spec = fleet_of([behind(a, None), made])
    with Machines(spec, state) as machines:
        with pytest.raises(HostFailure) as caught:
            machines.machine("h2").probe()
        # A machine without power does not even refuse.
        assert caught.value.kind == "refused" or b.port == 22
        assert caught.value.jump is None or b.port == 22
        assert "h1" in caught.value.cause
        assert machines.machine("h1").probe().boot_id


def test_the_way_breaks_and_is_made_again(ssh_hosts: Lab, fleet_of: FleetOf, state: Path) -> None:
    a, b = ssh_hosts(2)
    with Machines(fleet_of([behind(a, None), behind(b, "h1")]), state) as machines:
        assert machines.machine("h2").probe().boot_id
        a.drop_logins()
        assert machines.machine("h2").probe().boot_id


def test_the_key_of_a_host_behind_another_is_verified_and_trusted_like_any(
    ssh_hosts: Lab, fleet_of: FleetOf, state: Path
) -> None:
    a, b = ssh_hosts(2, known=False)
    spec = fleet_of([behind(a, None), behind(b, "h1")])
    with Machines(spec, state) as machines:
        with pytest.raises(HostFailure) as caught:
            machines.machine("h2").probe()
        assert caught.value.kind == "jump"
        assert "host key is not known" in caught.value.cause
        assert [key.host for key in keys.trust(spec, ["h2"])] == ["h1", "h2"]
        assert machines.machine("h2").probe().boot_id
    assert b.key_line() in ssh_hosts.known_hosts.read_text()


def test_a_circle_is_refused(ssh_hosts: Lab, fleet_of: FleetOf, state: Path) -> None:
    a, b = ssh_hosts(2)
    spec = fleet_of([behind(a, None), behind(b, "h1")])
    # fleet.yaml refuses this already; the connections do not rely on it.
    first = spec.hosts[0].model_copy(update={"ssh": spec.hosts[0].ssh.model_copy(update={"jump": "h2"})})
    spec = spec.model_copy(update={"hosts": (first, spec.hosts[1])})
    with Machines(spec, state) as machines, pytest.raises(HostFailure) as caught:
        machines.machine("h1")
    assert caught.value.kind == "config"
    assert "h1 -> h2 -> h1" in caught.value.cause
