"""A new release under load, with no host to spare: one host after the other drains, ends whole and comes back.

Below each form of supervision: the small program over a plain sshd, and units of a real systemd in containers
(`make test-systemd`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet_lab.host import Host, free_port, hosts_yaml
from fleet_lab.lab import Lab
from fleet_lab.systemd import SystemdHost, missing

if TYPE_CHECKING:
    from conftest import Fleet, Load

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(400)]

RATE = 30
UNIT = "fleetctl-test-{}.service"
# Where a container sees this environment: a unit has a /tmp of its own, and this one may lie there.
ENVIRONMENT = "/opt/agent"


@pytest.fixture
def unit_hosts() -> Iterator[list[SystemdHost]]:
    """Two containers with systemd that have this Python and its packages."""
    if why := missing():
        pytest.skip(why)
    if Path(sys.base_prefix) == Path("/usr"):
        pytest.skip(
            "this Python lies in /usr, of which a container has its own: make one with another PYTHON"
        )
    lab = Lab("sshd")
    try:
        for name in ("h1", "h2"):
            port = free_port("127.0.0.1")
            host = SystemdHost(name, lab.folder / name, port, lab.client_key, f"upgrade-{os.getpid()}")
            host.binds = {ENVIRONMENT: Path(sys.prefix), sys.base_prefix: Path(sys.base_prefix)}
            lab.hosts.append(host)
            host.start()
            with lab.known_hosts.open("a") as file:
                file.write(f"{host.key_line()}\n")
        yield [host for host in lab.hosts if isinstance(host, SystemdHost)]
    finally:
        lab.close()


def ours(host: Host) -> dict[int, str]:
    """The agent's processes there, and its supervisor's."""
    words = ("fleet_agent", "supervise.py")
    return {p.pid: p.command for p in host.processes() if any(word in p.command for word in words)}


async def upgrade(fleet: Fleet, hosts: Sequence[Host], entries: str) -> Load:
    """Release 2 takes the place of release 1 while requests come; what is true below any supervision."""

    def write(version: str, delay_ms: int) -> None:
        model = {"version": version, "options": {"delay_ms": delay_ms}}
        fleet.write(entries, {"min_servers": 2, "max_servers": 2}, model=model)

    async def answered(more: int) -> None:
        wanted = len(load.sent) + more
        await asyncio.to_thread(fleet.wait, "answers", lambda: len(load.sent) >= wanted)

    write("1", 5)
    await asyncio.to_thread(fleet.cli, "up")
    await asyncio.to_thread(fleet.wait_ready, 2)
    before = {host.name: ours(host) for host in hosts}
    assert all(before.values()), before
    async with fleet.load(RATE) as load:
        await answered(RATE)
        write("2", 6)
        await asyncio.to_thread(fleet.cli, "up", timeout_s=300)
        await answered(RATE)
    assert load.failed == [], f"{len(load.failed)} of {len(load.sent)}: {load.failed[:3]}"
    for name, host in fleet.hosts().items():
        models = [(m["name"], m["version"], m["ready"]) for m in host["models"]]
        assert (host["state"], models) == ("ready", [("tiny", "2", True)]), name
    for host in hosts:
        now = ours(host)
        assert not set(before[host.name]) & set(now), "what ran before is gone as a whole"
        assert sum("-m fleet_agent --config" in command for command in now.values()) == 1, now
    turns = [e for e in fleet.events() if e["kind"] in ("draining", "stopping", "off", "ready")][2:]
    assert [e["kind"] for e in turns] == ["draining", "stopping", "off", "ready"] * 2, turns
    assert len({e["host"] for e in turns[:4]}) == 1, "the second one only once the first is back"
    return load


async def test_below_the_supervising_program_no_request_fails(fleet: Fleet, ssh_hosts: Any) -> None:
    hosts = ssh_hosts(2)
    agent = {"port": 0, "supervisor": "process"}
    load = await upgrade(fleet, hosts, hosts_yaml(hosts, agent=agent))
    assert len(load.sent) > 2 * RATE
    assert all(any("supervise.py" in command for command in ours(host).values()) for host in hosts)


@pytest.mark.netns
@pytest.mark.systemd
async def test_as_units_of_systemd_no_request_fails(unit_hosts: list[SystemdHost], fleet: Fleet) -> None:
    agent = {"port": 0, "supervisor": "systemd"}
    install = {"interpreter": f"{ENVIRONMENT}/bin/python"}
    await upgrade(fleet, unit_hosts, hosts_yaml(list(unit_hosts), agent=agent, install=install))
    for host in unit_hosts:
        shown = host.run("systemctl", "show", "-P", "ActiveState", "-P", "NRestarts", UNIT.format(host.name))
        assert sorted(shown.stdout.split()) == ["0", "active"], (
            "the unit of before was stopped, not restarted"
        )
        units = host.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "fleetctl-*").stdout
        assert len(units.splitlines()) == 1, units
    await asyncio.to_thread(fleet.cli, "down", "--yes")
    for host in unit_hosts:
        assert ours(host) == {}
        loaded = host.run("systemctl", "show", "-P", "LoadState", UNIT.format(host.name)).stdout.strip()
        assert loaded == "not-found"
